//! A port that somebody else will open a moment later.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// Finds a free loopback port and keeps the system from handing it out again.
///
/// Most servers get port 0 and say what they got. Where two of them must know each other before
/// either runs, one port has to be known first. A connection that has just ended leaves its port in
/// TIME_WAIT for a minute: nobody gets it by asking for "any free one", while a server that asks for
/// exactly this one (with SO_REUSEADDR, as all do) does.
///
/// # Errors
/// The loopback interface gives no port.
pub fn reserve() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port")?;
    let address = listener.local_addr()?;
    let client = TcpStream::connect(address)?;
    let (server, _) = listener.accept()?;
    // The side that closes first is the one whose port waits.
    drop(server);
    drop(client);
    Ok(address.port())
}
