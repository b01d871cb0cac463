//! A proxy before the broker that cuts the broker's side of a connection and leaves the client's side open.

use std::sync::{Arc, Mutex};

use tokio::io::{copy, copy_bidirectional, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Server;

type Cuts = Arc<Mutex<Vec<Option<oneshot::Sender<Sides>>>>>;

/// Which sides of a connection are closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sides {
    Broker,
    Both,
}

/// Passes bytes on both ways until it is told to cut. Ends when dropped.
pub(crate) struct Proxy {
    url: String,
    cuts: Cuts,
    _links: JoinSet<()>,
}

impl Proxy {
    /// Listens on a port of its own.
    pub(crate) async fn before(server: &Server) -> Self {
        let broker = server.url().trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("nats://{}", listener.local_addr().expect("an address"));
        let cuts = Cuts::default();
        let mut links = JoinSet::new();
        links.spawn(accept(listener, broker, cuts.clone()));
        Self { url, cuts, _links: links }
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Closes the broker's side of these connections, by the order in which they were made. What their clients send
    /// goes nowhere from then on, and nothing tells them.
    pub(crate) fn cut(&self, connections: &[usize]) {
        connections.iter().for_each(|connection| self.close(*connection, Sides::Broker));
    }

    /// Closes both sides of a connection: its client notices, and connects anew.
    pub(crate) fn reset(&self, connection: usize) {
        self.close(connection, Sides::Both);
    }

    fn close(&self, connection: usize, sides: Sides) {
        let mut cuts = self.cuts.lock().expect("no panic in it");
        let cut = cuts.get_mut(connection).and_then(Option::take).expect("a connection that is not cut");
        assert!(cut.send(sides).is_ok(), "it stands");
    }
}

async fn accept(listener: TcpListener, broker: String, cuts: Cuts) {
    let mut links = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (cut, is_cut) = oneshot::channel();
        cuts.lock().expect("no panic in it").push(Some(cut));
        links.spawn(link(client, broker.clone(), is_cut));
    }
}

async fn link(mut client: TcpStream, broker: String, mut cut: oneshot::Receiver<Sides>) {
    let Ok(mut broker) = TcpStream::connect(&broker).await else { return };
    let closed = tokio::select! {
        _ = copy_bidirectional(&mut client, &mut broker) => Sides::Both,
        Ok(sides) = &mut cut => sides,
    };
    drop(broker);
    if closed == Sides::Broker {
        // Until the client gives up.
        drop(copy(&mut client, &mut sink()).await);
    }
}
