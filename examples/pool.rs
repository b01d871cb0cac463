//! A service: a pool of equal instances without keys, any of which may answer.
//!
//! ```text
//! cargo run -p greenroom-examples --example pool
//! ```

use std::time::{Duration, Instant};

use greenroom::HostOptions;
use greenroom::prelude::*;

/// Resizes pictures, which takes a while.
#[contract(service, messages(Resize))]
struct Resizer;

#[message(Resizer, ask, reply = Resized, refusal = TooWide)]
struct Resize {
    width: u32,
}

#[data]
struct Resized {
    width: u32,
    /// How many the instance that answers has resized.
    by_this_instance: u32,
}

#[refusal(code = 422)]
#[derive(thiserror::Error)]
#[error("at most {max} wide")]
struct TooWide {
    max: u32,
}

/// One instance. Its fields are its own; no other instance sees them.
#[derive(Default)]
struct ResizerService {
    resized: u32,
}

#[service(Resizer)]
impl ResizerService {
    #[ask]
    async fn resize(&mut self, msg: Resize) -> Result<Resized, TooWide> {
        if msg.width > 4_096 {
            return Err(TooWide { max: 4_096 });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.resized += 1;
        Ok(Resized { width: msg.width, by_this_instance: self.resized })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let four = HostOptions::new().pool(4);
    let node = Node::local("studio").host_with::<ResizerService>(four).start().await?;

    let started = Instant::now();
    let mut calls = Vec::new();
    for n in 0..12 {
        let resizer = node.service::<Resizer>();
        calls.push(tokio::spawn(async move { resizer.ask(Resize { width: 100 + n }).await }));
    }
    for call in calls {
        let done = call.await??;
        println!("{} wide, picture {} of its instance", done.width, done.by_this_instance);
        assert!(done.by_this_instance <= 3, "twelve pictures, four instances");
    }
    println!("12 pictures of 100 ms each in {} ms", started.elapsed().as_millis());

    let refused = node.service::<Resizer>().ask(Resize { width: 9_000 }).await;
    println!("9000 wide: {}", refused.expect_err("it is too wide"));
    Ok(node.drain().await?)
}
