//! What `up` prints when everything runs: one line for machines, then lines for people to try.

use super::Args;
use super::house::House;
use super::policy::Chosen;
use anyhow::Result;

/// Requests that surely exhaust the demo policy's limit per user (a burst of 20).
const TOO_MANY: u32 = 30;
/// Requests that surely open the demo policy's breaker (5 failures in a row) and meet it open.
const FAILURES: u32 = 7;

/// Prints everything.
pub(super) fn show(house: &House, chosen: &Chosen, args: &Args) -> Result<()> {
    let gateway = format!("http://{}", house.gateway());
    println!(
        "ready gateway={gateway} sidecar=http://{} envoy_admin=http://{} admin_token_file={}",
        house.sidecar(),
        house.envoy_admin(),
        house.place()?.join("admin-token").display()
    );
    println!();
    println!("logs       {}", house.place()?.display());
    println!("policy     {} (save it to change the running gateway)", chosen.file.display());
    for upstream in &args.upstream {
        let (name, host, port) = (&upstream.name, &upstream.host, upstream.port);
        println!("service    {gateway}/api/{name}/ is {host}:{port}");
    }
    if let Some(token) = chosen.token("demo-user")? {
        println!("token      {token}");
    }
    println!();
    if !chosen.demo {
        println!(
            "Try these (what they answer is up to your policy; the remarks fit the demo one):"
        );
    }
    for line in lines(&gateway, chosen)? {
        println!("{line}");
    }
    println!();
    println!("Ctrl-C stops everything.");
    Ok(())
}

/// Remark and command, one after the other. Each command has a user of its own, so that none uses
/// up what another one needs.
fn lines(gateway: &str, chosen: &Chosen) -> Result<Vec<String>> {
    let bearer = |subject: &str| -> Result<String> {
        let token = chosen.token(subject)?;
        Ok(token.map_or_else(String::new, |token| format!(" -H 'Authorization: Bearer {token}'")))
    };
    let show = "curl -sS -w '\\n%{http_code}\\n'";
    Ok(vec![
        "# allowed: 200 from the service `samples`".to_owned(),
        format!("{show}{} '{gateway}/api/samples/42'", bearer("demo-user")?),
        "# no token: 401, code credentials-missing".to_owned(),
        format!("{show} '{gateway}/api/samples/42'"),
        "# from an address that the policy denies: 403, code ip-denied".to_owned(),
        format!("{show} --interface 127.0.0.66{} '{gateway}/api/samples/42'", bearer("demo-user")?),
        format!("# {TOO_MANY} requests of one user: 200 until the limit, then 429"),
        format!(
            "curl -sS -o /dev/null -w '%{{http_code}}\\n'{} '{gateway}/api/templates/[1-{TOO_MANY}]'",
            bearer("busy-user")?
        ),
        "# a service that fails: after five failures its breaker is open, 503, code breaker-open"
            .to_owned(),
        format!(
            "{show}{} '{gateway}/api/sequencing/status/503?n=[1-{FAILURES}]'",
            bearer("unlucky-user")?
        ),
    ])
}
