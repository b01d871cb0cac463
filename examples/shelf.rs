//! The program of the guide's start (`docs/guide/start.md`), on a broker. **Needs a nats-server with JetStream.**
//!
//! ```text
//! cargo run -p greenroom-examples --example shelf
//! nats req pantry.shelf.jam.put '{"jars":3}'
//! ```

use greenroom::prelude::*;

/// A shelf of the pantry.
#[contract(messages(Put, Take, Look))]
struct Shelf;

#[message(Shelf, ask, reply = u32)]
struct Put {
    jars: u32,
}

#[message(Shelf, ask, reply = u32, refusal = TooFew)]
struct Take {
    jars: u32,
}

#[message(Shelf, read, reply = u32)]
struct Look;

#[refusal]
#[derive(thiserror::Error)]
#[error("there are only {jars}")]
struct TooFew {
    jars: u32,
}

#[derive(Default)]
struct ShelfActor {
    jars: u32,
}

#[actor(Shelf)]
impl ShelfActor {
    #[ask]
    fn put(&mut self, msg: Put) -> u32 {
        self.jars += msg.jars;
        self.jars
    }

    #[ask]
    fn take(&mut self, msg: Take) -> Result<u32, TooFew> {
        self.jars = self.jars.checked_sub(msg.jars).ok_or(TooFew { jars: self.jars })?;
        Ok(self.jars)
    }

    #[read]
    fn look(&self, _: Look) -> u32 {
        self.jars
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::builder("pantry").host::<ShelfActor>().start().await?;
    println!("ready {}", node.id());
    stopped().await?;
    Ok(node.drain().await?)
}

/// Waits for Ctrl-C, or for the SIGTERM of `kill`, systemd or Kubernetes.
async fn stopped() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
