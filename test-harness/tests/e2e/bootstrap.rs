//! What `envoy/envoy.yaml` promises beside the filter: a bound on connections, and traces for those
//! who switch them on as the file says.

use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;
use test_harness::bootstrap::Peer;
use test_harness::envoy::READY_WITHIN;
use test_harness::mesh::SOON;
use test_harness::policy::Check::Unchecked;
use test_harness::process::Process;
use test_harness::raw::Raw;
use test_harness::wait::until_true;
use test_harness::{Artefacts, Bootstrap, Mesh, policy};

const GET: &str = "GET /api/auth/x HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn a_connection_too_many_is_closed_and_those_that_are_there_stay() -> Result<()> {
    Mesh::with(policy::base()).connections(4).run(|mesh| {
        let mut there = Vec::new();
        for _ in 0..4 {
            let mut raw = Raw::connect(mesh.gateway())?;
            assert_eq!(raw.send(GET)?.answer()?.status(), 200);
            there.push(raw);
        }
        for _ in 0..3 {
            let answer = Raw::connect(mesh.gateway())?.send(GET)?.rest()?;
            assert_eq!(answer.text(), "", "one too many got an answer");
        }
        for raw in &mut there {
            assert_eq!(raw.send(GET)?.answer()?.status(), 200);
        }
        there.pop();
        until_true("a place to be free", SOON, || {
            Ok(Raw::connect(mesh.gateway())?.send(GET)?.answer()?.status() == 200)
        })
    })
}

/// Takes one `#` from the lines of the block that begins with `first`: those that follow it, have
/// their `#` in the same column, and are indented in the comment.
fn switched_on(text: &str, first: &str) -> Result<String> {
    let (mut out, mut column, mut found) = (String::new(), None, 0);
    for line in text.lines() {
        let comment = line.trim_start().strip_prefix("# ");
        let at = line.find('#');
        if comment == Some(first) {
            (column, found) = (at, found + 1);
        } else if column != at || comment.is_none_or(|c| !c.starts_with("  ")) {
            column = None;
        }
        match (column, comment) {
            (Some(column), Some(comment)) => out.push_str(&(" ".repeat(column) + comment)),
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    ensure!(found == 1, "{found} blocks begin with {first:?}");
    Ok(out)
}

#[test]
fn traces_can_be_switched_on_as_the_file_says() -> Result<()> {
    let artefacts = Artefacts::find()?;
    let shipped = std::fs::read_to_string(&artefacts.bootstrap)?;
    let text = switched_on(&shipped, "tracing:")?;
    let text = switched_on(&text, "- name: otel-collector")?;
    let mut bootstrap = Bootstrap::parse(&text)?;
    let dir = tempfile::tempdir()?;
    let resource = dir.path().join("policy.yaml");
    policy::render(&artefacts.sidecar, &artefacts.policy, &artefacts.module, &resource, Unchecked)?;
    bootstrap.policy(&resource)?;
    bootstrap.module(&artefacts.module)?;
    let document = bootstrap.document_mut();
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let cluster = "/tracing/provider/typed_config/grpc_service/envoy_grpc/cluster_name";
    let cluster = document.pointer(&format!("{manager}{cluster}")).cloned();
    assert_eq!(cluster, Some("otel-collector".into()));
    let clusters = document.pointer("/static_resources/clusters").and_then(|c| c.as_array());
    let last = clusters.and_then(|c| c.last()).and_then(|c| c.get("name")).cloned();
    assert_eq!(last, cluster);

    validates(&artefacts, &bootstrap, dir.path())
}

/// Envoy's own validation takes it.
fn validates(artefacts: &Artefacts, bootstrap: &Bootstrap, dir: &Path) -> Result<()> {
    let config = dir.join("envoy.json");
    bootstrap.write(&config)?;
    let mut command = Command::new(&artefacts.envoy);
    command.args(["--mode", "validate", "--log-level", "warning", "-c"]).arg(&config);
    let mut validation = Process::start("validation", command, dir)?;
    let status = validation.wait(READY_WITHIN)?;
    assert!(status.success(), "{}", validation.tail());
    Ok(())
}

#[test]
fn an_identity_provider_can_be_reached_as_the_file_says_and_as_up_says() -> Result<()> {
    let artefacts = Artefacts::find()?;
    let shipped = std::fs::read_to_string(&artefacts.bootstrap)?;
    let mut by_hand = Bootstrap::parse(&switched_on(&shipped, "- name: idp")?)?;
    let mut by_up = Bootstrap::parse(&shipped)?;
    by_up.cluster("idp", &Peer::from_url("https://idp.example")?)?;
    for bootstrap in [&mut by_hand, &mut by_up] {
        assert!(bootstrap.has_cluster("idp")?);
        let dir = tempfile::tempdir()?;
        let resource = dir.path().join("policy.yaml");
        let (policy, module) = (&artefacts.policy, &artefacts.module);
        policy::render(&artefacts.sidecar, policy, module, &resource, Unchecked)?;
        bootstrap.policy(&resource)?;
        bootstrap.module(module)?;
        validates(&artefacts, bootstrap, dir.path())?;
    }
    Ok(())
}
