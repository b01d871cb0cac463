//! The actor of `hello` on a real broker, until Ctrl-C or SIGTERM. **Needs a nats-server with JetStream.**
//!
//! ```text
//! nats-server -js                                            # in a terminal of its own, and so the next
//! cargo run -p greenroom-examples --example serve
//! nats req demo.greeter.ada.hello '{"from":"you"}'
//! ```
//!
//! The broker is found as the `nats` CLI finds it: `NATS_URL`, `NATS_CONTEXT` and so on, else
//! `nats://127.0.0.1:4222`. Start it twice and the two share the actors.

use greenroom::prelude::*;
use greenroom_examples::stop_signal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Greets whoever says hello.
#[contract(messages(Hello))]
struct Greeter;

/// Says hello.
#[message(Greeter, ask, reply = String)]
struct Hello {
    from: String,
}

/// Its state: how many it has greeted.
#[derive(Default)]
struct GreeterActor(u32);

#[actor(Greeter)]
impl GreeterActor {
    #[ask]
    fn hello(&mut self, msg: Hello, ctx: &mut Context<'_, Self>) -> String {
        self.0 += 1;
        format!("{} greets {}: greeting {}", ctx.key(), msg.from, self.0)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Warnings, unless RUST_LOG says otherwise.
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_ansi(colours).with_writer(std::io::stderr).with_env_filter(filter).init();
    let node = Node::builder("demo").host::<GreeterActor>().start().await?;
    println!("ready {}; Ctrl-C ends it", node.id());
    stop_signal().await?;
    // Running turns finish, and the actors go to the other nodes, if there are any.
    node.drain().await?;
    println!("drained");
    Ok(())
}
