//! What stands between one node and one server: it passes bytes on, until it is told to stop.
//!
//! While it is cut it passes nothing on and closes nothing, in both directions, as a cable does that was pulled; bytes
//! that wait are not lost, and go on late, when it is mended. The most a network can do to a connection without
//! ending it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// How often what is passed on looks whether it may.
const LOOK: Duration = Duration::from_millis(10);

/// A proxy on a port of its own. Ends, with all its connections, when dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    flags: Arc<Flags>,
}

#[derive(Debug, Default)]
struct Flags {
    cut: AtomicBool,
    ended: AtomicBool,
}

impl Proxy {
    /// Stands before the server on this port, at this address.
    pub(super) fn before(port: u16, at: Ipv4Addr) -> Result<Self> {
        let listener = TcpListener::bind((at, 0))?;
        let address = listener.local_addr()?;
        let flags = Arc::new(Flags::default());
        let its = flags.clone();
        thread::Builder::new().name("proxy".to_owned()).spawn(move || accept(&listener, port, &its))?;
        Ok(Self { address, flags })
    }

    /// Where to connect.
    pub(super) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Passes nothing on from now.
    pub(super) fn cut(&self) {
        self.flags.cut.store(true, Ordering::SeqCst);
    }

    /// Passes on again, beginning with what waits.
    pub(super) fn mend(&self) {
        self.flags.cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.flags.ended.store(true, Ordering::SeqCst);
        // The one that accepts is waiting for a connection.
        drop(TcpStream::connect(self.address));
    }
}

fn accept(listener: &TcpListener, port: u16, flags: &Arc<Flags>) {
    for client in listener.incoming() {
        if flags.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let flags = flags.clone();
        let link = thread::Builder::new().name("proxy-link".to_owned());
        // Without a thread the connection closes, and its client tries again.
        drop(link.spawn(move || drop(pass(client, port, &flags))));
    }
}

fn pass(client: TcpStream, port: u16, flags: &Arc<Flags>) -> Result<()> {
    while flags.cut.load(Ordering::SeqCst) {
        if flags.ended.load(Ordering::SeqCst) {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    let server = TcpStream::connect(("127.0.0.1", port))?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    let (from, to, its) = (client.try_clone()?, server.try_clone()?, flags.clone());
    thread::Builder::new().name("proxy-link".to_owned()).spawn(move || copy(from, to, &its))?;
    copy(server, client, flags);
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, flags: &Flags) {
    let mut buffer = [0; 32 * 1024];
    while !flags.ended.load(Ordering::SeqCst) {
        if flags.cut.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                // What was read in the moment of the cut does not go through either.
                while flags.cut.load(Ordering::SeqCst) && !flags.ended.load(Ordering::SeqCst) {
                    thread::sleep(LOOK);
                }
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}
