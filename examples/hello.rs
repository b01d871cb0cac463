//! The smallest actor: it greets, and remembers how often.
//!
//! ```text
//! cargo run -p greenroom-examples --example hello
//! ```
//!
//! No server is needed. `serve` is the same actor on one.

use greenroom::prelude::*;

/// Greets whoever says hello.
#[contract(messages(Hello))]
struct Greeter;

/// Says hello.
#[message(Greeter, ask, reply = String)]
struct Hello {
    from: String,
}

#[derive(Default)]
struct GreeterActor {
    greeted: u32,
}

#[actor(Greeter)]
impl GreeterActor {
    #[ask]
    fn hello(&mut self, msg: Hello, ctx: &mut Context<'_, Self>) -> String {
        self.greeted += 1;
        format!("{} greets {}: greeting {}", ctx.key(), msg.from, self.greeted)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::local("demo").host::<GreeterActor>().start().await?;
    println!("{}", node.actor::<Greeter>("ada").ask(Hello { from: "Bob".into() }).await?);
    println!("{}", node.actor::<Greeter>("ada").ask(Hello { from: "Eve".into() }).await?);
    Ok(node.drain().await?)
}
