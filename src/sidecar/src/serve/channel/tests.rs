//! The long poll in virtual time.

use super::queue::{ATTEMPTS_MAX, RESEND_AFTER};
use super::*;
use policy::sync::DoneOutcome;
use std::sync::Arc;

fn poll(instance: &str, done: Vec<Done>) -> Poll {
    Poll {
        protocol: policy::sync::PROTOCOL,
        instance: instance.to_owned(),
        policy: PolicyInForce { name: "p".into(), hash: "1".into(), generation: 1 },
        wait_ms: 5000,
        done,
        state: position(0),
        wants: Wants::default(),
    }
}

fn position(number: u64) -> Position {
    Position { store: "ab".into(), number }
}

fn new() -> Channel {
    Channel::new(position(0))
}

fn reset(service: &str) -> Action {
    Action::ResetBreaker { service: service.to_owned() }
}

fn done(id: u64, outcome: DoneOutcome) -> Vec<Done> {
    vec![Done { id, outcome, standings: Vec::new() }]
}

const WAIT: Duration = Duration::from_secs(5);

/// Polls, and says how long it was held.
async fn held(channel: &Channel, poll: Poll) -> (Vec<u64>, Duration) {
    let start = Instant::now();
    let (commands, _) = channel.poll(poll, WAIT).await;
    (commands.iter().map(|command| command.id).collect(), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_poll_without_commands_is_held_for_its_wait() {
    let channel = new();
    let (commands, span) = held(&channel, poll("a", Vec::new())).await;
    assert!(commands.is_empty());
    assert!((WAIT..WAIT + Duration::from_millis(10)).contains(&span), "{span:?}");
}

#[tokio::test(start_paused = true)]
async fn a_held_poll_is_answered_at_once_and_the_asker_hears_of_it() {
    let channel = Arc::new(new());
    let other = Arc::clone(&channel);
    let polling = tokio::spawn(async move { held(&other, poll("a", Vec::new())).await });
    tokio::task::yield_now().await;
    assert!(channel.status().connected);
    let taken = channel.put(reset("x")).unwrap();
    let (commands, span) = polling.await.unwrap();
    assert_eq!((commands, span), (vec![taken.id], Duration::ZERO));
    let acknowledged = poll("a", done(taken.id, DoneOutcome::Applied));
    let (next, _) = held(&channel, acknowledged).await;
    assert!(next.is_empty());
    assert_eq!(taken.done.await.unwrap().outcome, DoneOutcome::Applied);
    assert_eq!(channel.status().counts.applied, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acknowledged_is_sent_again_but_does_not_spin() {
    let channel = new();
    let id = channel.put(reset("x")).unwrap().id;
    assert_eq!(held(&channel, poll("a", Vec::new())).await, (vec![id], Duration::ZERO));
    let (again, span) = held(&channel, poll("a", Vec::new())).await;
    assert_eq!(again, [id]);
    assert!(span >= RESEND_AFTER, "{span:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_envoy_gets_what_the_old_one_did_not_do_at_once() {
    let channel = new();
    let id = channel.put(reset("x")).unwrap().id;
    held(&channel, poll("a", Vec::new())).await;
    assert_eq!(held(&channel, poll("b", Vec::new())).await, (vec![id], Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_new_command_takes_the_older_ones_with_it_in_order() {
    let channel = new();
    let first = channel.put(reset("x")).unwrap().id;
    held(&channel, poll("a", Vec::new())).await;
    let second = channel.put(reset("y")).unwrap().id;
    assert!(second > first);
    assert_eq!(held(&channel, poll("a", Vec::new())).await, (vec![first, second], Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_newer_poll_sends_the_older_one_home() {
    let channel = Arc::new(new());
    let other = Arc::clone(&channel);
    let old = tokio::spawn(async move { held(&other, poll("a", Vec::new())).await });
    tokio::task::yield_now().await;
    let other = Arc::clone(&channel);
    let new = tokio::spawn(async move { held(&other, poll("a", Vec::new())).await });
    let (commands, span) = old.await.unwrap();
    assert!(commands.is_empty());
    assert!(span < Duration::from_secs(1), "{span:?}");
    let id = channel.put(reset("x")).unwrap().id;
    assert_eq!(new.await.unwrap().0, [id]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_command_is_tried_again_under_a_new_number_and_given_up_in_the_end() {
    let channel = new();
    let mut taken = channel.put(reset("x")).unwrap();
    let mut id = taken.id;
    for _ in 1..ATTEMPTS_MAX {
        let (next, _) = held(&channel, poll("a", done(id, DoneOutcome::Failed))).await;
        assert!(next[0] > id);
        assert!(taken.done.try_recv().is_err());
        id = next[0];
    }
    held(&channel, poll("a", done(id, DoneOutcome::Failed))).await;
    assert_eq!(taken.done.await.unwrap().outcome, DoneOutcome::Failed);
    assert_eq!(channel.status().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_a_bounded_number_of_commands_and_the_queue_a_bound() {
    let channel = new();
    for _ in 0..QUEUE_MAX {
        channel.put(reset("x")).unwrap();
    }
    assert_eq!(channel.put(reset("x")).unwrap_err(), QueueFull);
    let (commands, _) = held(&channel, poll("a", Vec::new())).await;
    assert_eq!(commands.len(), COMMANDS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_sidecar_answers_held_polls_and_lets_askers_go() {
    let channel = Arc::new(new());
    let other = Arc::clone(&channel);
    let taken = channel.put(reset("x")).unwrap();
    held(&channel, poll("a", Vec::new())).await;
    let polling = tokio::spawn(async move { held(&other, poll("a", Vec::new())).await });
    tokio::task::yield_now().await;
    channel.stop();
    assert_eq!(polling.await.unwrap(), (Vec::new(), Duration::ZERO));
    assert!(taken.done.await.is_err());
    assert!(channel.put(reset("x")).unwrap().done.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_is_not_connected_for_long() {
    let channel = Arc::new(new());
    assert!(!channel.status().connected);
    let other = Arc::clone(&channel);
    let polling = tokio::spawn(async move { held(&other, poll("a", Vec::new())).await });
    tokio::task::yield_now().await;
    assert_eq!(channel.status().age, Duration::ZERO);
    polling.abort();
    assert!(polling.await.is_err());
    assert!(channel.status().connected);
    tokio::time::advance(CONNECTED_FOR + Duration::from_millis(1)).await;
    assert!(!channel.status().connected);
    assert!(channel.status().age > CONNECTED_FOR);
}

/// Polls with a state, and says what it was told and how long it was held.
async fn told(channel: &Channel, has: Position) -> (u64, Duration) {
    let start = Instant::now();
    let poll = Poll { state: has, ..poll("a", Vec::new()) };
    let (commands, position) = channel.poll(poll, WAIT).await;
    assert!(commands.is_empty());
    (position.number, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_lacks_state_hears_of_it_at_once_but_does_not_spin() {
    let channel = new();
    channel.offer(|| position(3));
    assert_eq!(told(&channel, position(1)).await, (3, Duration::ZERO));
    let (number, span) = told(&channel, position(1)).await;
    assert_eq!(number, 3);
    assert!(span >= RESEND_AFTER, "{span:?}");
    // Progress is answered at once, and so is another store.
    assert_eq!(told(&channel, position(2)).await, (3, Duration::ZERO));
    let other = Position { store: String::new(), number: 3 };
    assert_eq!(told(&channel, other).await, (3, Duration::ZERO));
    assert!(told(&channel, position(3)).await.1 >= WAIT);
}

#[tokio::test(start_paused = true)]
async fn the_filters_position_is_the_receipt() {
    let channel = Arc::new(new());
    let other = Arc::clone(&channel);
    let polling = tokio::spawn(async move { told(&other, position(0)).await });
    tokio::task::yield_now().await;
    channel.offer(|| position(2));
    assert_eq!(polling.await.unwrap(), (2, Duration::ZERO));
    let other = Arc::clone(&channel);
    let waiting = tokio::spawn(async move { other.received(2).await });
    tokio::time::timeout(WAIT, told(&channel, position(1))).await.unwrap();
    assert!(!waiting.is_finished());
    told(&channel, position(2)).await;
    assert_eq!(waiting.await.unwrap(), Some(()));
    channel.stop();
    assert_eq!(channel.received(1).await, Some(()), "past it");
    assert_eq!(channel.received(3).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_position_in_another_store_is_no_receipt() {
    let channel = new();
    channel.offer(|| position(5));
    channel.offer(|| Position { store: "cd".into(), number: 4 });
    assert_eq!(told(&channel, position(4)).await, (4, Duration::ZERO));
    let received = tokio::time::timeout(WAIT, channel.received(4)).await;
    assert!(received.is_err(), "{received:?}");
    told(&channel, Position { store: "cd".into(), number: 4 }).await;
    assert_eq!(channel.received(4).await, Some(()));
}
