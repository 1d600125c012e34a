//! `up` with an identity provider of one's own, as the README tells: its tokens are taken, and what
//! the sidecar was told is still known the next time.

use super::{ANY_PORTS, REFUSED_WITHIN, STOP_WITHIN, address, field, ready, refused, up, write};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use test_harness::issuer::{CLUSTER, HOST, Issuer, PATH};
use test_harness::process::Process;
use test_harness::token::{Key, Token, jwks};
use test_harness::{Request, wait};

/// How long a key set, or what the sidecar holds, may take to be there on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The case.
pub(super) fn test(ctx: &Workspace, dir: &Path) -> Result<()> {
    let text = json!({
        "version": 1, "name": "own",
        "sidecar": { "cluster": "gateway-sidecar", "token": { "env": "GATEWAY_SYNC_TOKEN" } },
        "authentication": {
            "api_keys": {},
            "jwt": { "providers": [{
                "name": "idp", "issuer": "https://idp.example", "audiences": ["tracseq-api"],
                "algorithms": ["RS256"],
                "keys": { "jwks": { "cluster": CLUSTER, "host": HOST, "path": PATH } }
            }]}
        },
        "revocation": {}
    });
    let policy = write(dir, "own.yaml", &text.to_string())?;
    let arguments = [&ANY_PORTS[..], &["--policy", &policy]].concat();
    // Who forgets the cluster is told what to add.
    let forgot = up(ctx, "up-no-cluster", dir, &arguments)?;
    refused(forgot, &["--cluster idp=https://idp.example"])
        .with_context(|| format!("within {REFUSED_WITHIN:?}"))?;

    let idp = Issuer::start(&jwks()?)?;
    let cluster = format!("{CLUSTER}=http://{}", idp.address());
    let data = dir.join("data").display().to_string();
    let more = ["--cluster", &cluster, "--data-dir", &data];
    let arguments = [&arguments[..], &more].concat();
    let token = Token::new(Key::Rs256, "anna").claim("iss", "https://idp.example");
    let (good, gone) = (token.clone().sign()?, token.claim("jti", "gone").sign()?);

    let (mut house, gateway, line) = start(ctx, "up-own", dir, &arguments)?;
    until(gateway, &good, 200)?;
    let sidecar = address(&line, "sidecar")?;
    let admin = std::fs::read_to_string(field(&line, "admin_token_file")?)?;
    let order = |path: &str, body: &Value| {
        Request::new(sidecar, "POST", path).bearer(admin.trim()).json(body).send()
    };
    order("/gateway/revocations", &json!({ "jti": "gone" }))?.expect(200)?;
    let made = order("/gateway/api-keys", &json!({ "id": "robot" }))?.json();
    let key = made.get("secret").and_then(Value::as_str).context("no secret")?.to_owned();
    let robot = || Request::new(gateway, "GET", "/api/samples/1").header("x-api-key", &key);
    robot().send()?.expect(200)?;
    until(gateway, &gone, 401)?;
    println!("    an identity provider of one's own is believed, and its token revoked");
    stop(&mut house)?;

    let (mut house, gateway, _) = start(ctx, "up-again", dir, &arguments)?;
    until(gateway, &good, 200)?;
    until(gateway, &gone, 401)?;
    let robot = Request::new(gateway, "GET", "/api/samples/1").header("x-api-key", &key);
    robot.send()?.expect(200)?;
    println!("    with --data-dir both are still known the next time");
    stop(&mut house)
}

fn start(
    ctx: &Workspace,
    name: &str,
    dir: &Path,
    arguments: &[&str],
) -> Result<(Process, SocketAddr, String)> {
    let mut house = up(ctx, name, dir, arguments)?;
    let line = ready(&mut house)?;
    let gateway = address(&line, "gateway")?;
    Ok((house, gateway, line))
}

fn until(gateway: SocketAddr, token: &str, status: u16) -> Result<()> {
    wait::until_true(&format!("{status} for a token"), SOON, || {
        let request = Request::new(gateway, "GET", "/api/samples/1").bearer(token);
        Ok(request.send()?.status == status)
    })
}

fn stop(house: &mut Process) -> Result<()> {
    house.terminate()?;
    let status = house.wait(STOP_WITHIN).with_context(|| house.tail())?;
    ensure!(status.success(), "after SIGTERM: {status}\n{}", house.tail());
    Ok(())
}
