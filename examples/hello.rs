//! The smallest actor: it greets, and remembers how often. Beside the import it takes 23 lines, six of which are
//! attributes.
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
    let node = Node::local("demo").host::<GreeterActor>().start().await?;
    println!("{}", node.actor::<Greeter>("ada").ask(Hello { from: "Bob".into() }).await?);
    println!("{}", node.actor::<Greeter>("ada").ask(Hello { from: "Eve".into() }).await?);
    Ok(node.drain().await?)
}
