//! Supervision: tasks that are restarted together, an actor that panics, its quarantine and release.
//!
//! ```text
//! cargo run -p greenroom-examples --example supervision
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use greenroom::prelude::*;
use greenroom::{Restart, Strategy, TaskGroup};

/// Divides, and panics when it must not.
#[contract(messages(Divide))]
struct Divider;

#[message(Divider, ask, reply = u32)]
struct Divide {
    by: u32,
}

#[derive(Default)]
struct DividerActor;

#[actor(Divider)]
impl DividerActor {
    #[ask]
    fn divide(&mut self, msg: Divide) -> u32 {
        100 / msg.by
    }
}

/// Two tasks, of which the second builds on the first: when the first fails, both are restarted.
fn feed(starts: &Arc<AtomicU32>) -> TaskGroup {
    let rule = Restart { strategy: Strategy::RestForOne, ..Restart::default() };
    let (source, sink) = (Arc::new(AtomicU32::new(0)), starts.clone());
    TaskGroup::new("feed", rule)
        .task("source", move |_node| {
            let start = source.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if start < 3 {
                    return Err(Error::new(ErrorKind::Unavailable, "the source is not there yet"));
                }
                std::future::pending().await
            }
        })
        .task("sink", move |_node| {
            sink.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    std::panic::set_hook(Box::new(|panic| eprintln!("as intended, {panic}")));
    let sinks = Arc::new(AtomicU32::new(0));
    let node = Node::local("sums").host::<DividerActor>().group(feed(&sinks)).start().await?;

    while sinks.load(Ordering::Relaxed) < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for child in node.supervision().iter().flat_map(|group| &group.children) {
        println!("{}: {:?} after {} restarts", child.name, child.state, child.restarts);
    }

    // A panic ends its own turn, and costs one actor its memory. One that goes on panicking is
    // paused for longer and longer, and at the fifth within a minute put into quarantine.
    let (bad, good) = (node.actor::<Divider>("bad"), node.actor::<Divider>("good"));
    loop {
        let failed = bad.ask(Divide { by: 0 }).await.expect_err("it cannot be divided by zero");
        match failed.failure().map(Error::kind) {
            Some(ErrorKind::Panicked) => println!("panicked; the other one says {}", good.ask(Divide { by: 4 }).await?),
            Some(ErrorKind::Unavailable) => tokio::time::sleep(Duration::from_millis(10)).await,
            Some(ErrorKind::Quarantined) => break println!("{failed}"),
            _ => return Err(failed.into()),
        }
    }
    println!("in quarantine: {:?}", node.info().quarantined.keys());

    assert!(node.release::<Divider>("bad")?);
    println!("released, it says {}", bad.ask(Divide { by: 5 }).await?);
    Ok(node.drain().await?)
}
