//! Events: what an actor emits in a turn is told to whoever watches, once the turn has committed.
//!
//! ```text
//! cargo run -p greenroom-examples --example events
//! ```
//!
//! On a real broker `nats sub 'house.on.>'` shows the same.

use greenroom::prelude::*;

/// A door; its key says which.
#[contract(messages(Open), event = DoorEvent)]
struct Door;

#[message(Door, ask, refusal = Locked)]
struct Open {
    code: u32,
}

#[refusal(code = 403)]
#[derive(thiserror::Error, PartialEq)]
#[error("that is not the code")]
struct Locked;

#[event(Door)]
#[derive(PartialEq)]
enum DoorEvent {
    Tried { code: u32 },
    Opened,
}

#[data]
#[derive(Default)]
struct Log {
    opened: u32,
}

impl State for Log {
    type Event = DoorEvent;

    fn apply(&mut self, event: &DoorEvent) {
        if *event == DoorEvent::Opened {
            self.opened += 1;
        }
    }
}

struct DoorActor {
    log: Durable<Log>,
}

#[actor(Door, state = log)]
impl DoorActor {
    fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { log: ctx.volatile()? })
    }

    #[ask]
    fn open(&mut self, msg: Open) -> Result<(), Locked> {
        self.log.emit(DoorEvent::Tried { code: msg.code });
        if msg.code != 1234 {
            return Err(Locked); // takes `Tried` back too: a refused turn leaves no trace
        }
        self.log.emit(DoorEvent::Opened);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::local("house").host::<DoorActor>().start().await?;
    // Live: from now on, at most once each. Also: `.name("opened")`, `.key("front")`, `.group("audit")`.
    let mut events = node.subscribe::<DoorEvent>().live().await?;

    let refused = node.actor::<Door>("front").ask(Open { code: 1 }).await;
    assert!(matches!(refused, Err(AskError::Refused(Locked))));
    node.actor::<Door>("front").ask(Open { code: 1234 }).await?;

    for expected in [DoorEvent::Tried { code: 1234 }, DoorEvent::Opened] {
        let Some(received) = events.next().await else { anyhow::bail!("the node has stopped") };
        println!("{} #{}: {:?}", received.key, received.sequence, received.event);
        assert_eq!(received.event, expected);
    }
    Ok(node.drain().await?)
}
