//! The smallest actor: run with `cargo run -p greenroom-examples --example hello`.
//!
//! It needs no server. With one, replace `Node::local("demo")` by `Node::builder("demo")` and ask
//! from a shell: `nats req demo.greeter.ada.hello '{"from":"you"}'`.

use greenroom::prelude::*;

/// Greets whoever says hello.
#[contract(messages(Hello))]
pub struct Greeter;

/// Says hello.
#[message(Greeter, ask, reply = String)]
pub struct Hello {
    /// Who says it.
    pub from: String,
}

/// A greeter, one for each key.
#[derive(Default)]
pub struct GreeterActor {
    seen: u32,
}

#[actor(Greeter)]
impl GreeterActor {
    #[ask]
    fn hello(&mut self, msg: Hello, ctx: &mut Context<'_, Self>) -> String {
        self.seen += 1;
        format!("{} to {}, for the {}. time", ctx.key(), msg.from, self.seen)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::local("demo").host::<GreeterActor>().start().await?;
    println!("{}", node.actor::<Greeter>("ada").ask(Hello { from: "you".into() }).await?);
    println!("{}", node.actor::<Greeter>("ada").ask(Hello { from: "you".into() }).await?);
    node.drain().await?;
    Ok(())
}
