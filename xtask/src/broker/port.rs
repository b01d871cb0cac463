//! Free ports.
//!
//! Binding to port 0 would give one from the range that the kernel also hands to
//! outgoing connections. A broker that is killed and restarted on such a port can
//! find it taken by a client, even by one that was trying to reconnect to it. So
//! ports come from below that range.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// A port on 127.0.0.1 that nobody listens on at this moment; never the same one twice in a row of calls.
pub fn free_port() -> Result<u16> {
    // Threads of one process share the counter, so they never race for one port;
    // processes start at different places, so they seldom do.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = process::id().wrapping_mul(0x9E37_79B1) >> 8;
        let port = FIRST + start.wrapping_add(step) % COUNT;
        if let Ok(port) = u16::try_from(port)
            && is_free(port)
        {
            return Ok(port);
        }
    }
    bail!("every port from {FIRST} to {} is taken", FIRST + COUNT - 1)
}

/// Whether one could listen on this port of 127.0.0.1 at this moment.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
