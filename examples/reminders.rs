//! Invoices that ask for their money: a reminder outlives the program. **Needs a nats-server with JetStream.**
//!
//! ```text
//! cargo run -p greenroom-examples --example reminders
//! nats req shop.invoice.17.open '{"days":0.0001}'
//! nats req shop.invoice.17.look
//! nats req shop.invoice.17.pay
//! ```
//!
//! End the program in between, by `kill -9` if you like, and start it again: what fell due meanwhile is done then.

use std::time::Duration;

use greenroom::prelude::*;

const DAY: f64 = 24.0 * 3600.0;

/// An invoice, by its number.
#[contract(messages(Open, Pay, Look, Insist), event = InvoiceEvent)]
struct Invoice;

/// Opens it, to be paid within so many days. The reply says what was armed.
#[message(Invoice, ask, reply = String)]
struct Open {
    days: f64,
}

/// Pays it. The reply says whether a reminder was cancelled.
#[message(Invoice, ask, reply = bool)]
struct Pay;

/// How many letters were sent.
#[message(Invoice, read, reply = u32)]
struct Look;

/// What the invoice tells itself when it was not paid in time.
#[message(Invoice, tell)]
struct Insist {
    letter: u32,
}

#[event(Invoice)]
enum InvoiceEvent {
    Reminded { letter: u32 },
}

#[data]
#[derive(Default)]
struct Letters {
    sent: u32,
}

impl State for Letters {
    type Event = InvoiceEvent;

    fn apply(&mut self, event: &InvoiceEvent) {
        let InvoiceEvent::Reminded { letter } = event;
        self.sent = *letter;
    }
}

struct InvoiceActor {
    letters: Durable<Letters>,
}

#[actor(Invoice, state = letters, durable)]
impl InvoiceActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { letters: ctx.durable().await? })
    }

    #[ask]
    fn open(&mut self, msg: Open, ctx: &mut Context<'_, Self>) -> String {
        let Ok(time) = Duration::try_from_secs_f64(msg.days * DAY) else {
            return "so many days there are not".to_owned();
        };
        match ctx.remind("payment", Schedule::after(time), Insist { letter: 1 }) {
            Ok(()) => format!("a letter follows in {time:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[ask]
    fn pay(&mut self, _: Pay, ctx: &mut Context<'_, Self>) -> bool {
        // Once this is answered, no letter is sent any more.
        ctx.cancel_reminder("payment").unwrap_or_default()
    }

    #[read]
    fn look(&self, _: Look) -> u32 {
        self.letters.sent
    }

    #[tell]
    fn insist(&mut self, msg: Insist, ctx: &mut Context<'_, Self>) {
        println!("letter {} for invoice {}", msg.letter, ctx.key());
        self.letters.emit(InvoiceEvent::Reminded { letter: msg.letter });
        // The next one every Monday morning, until it is paid.
        let mondays = Schedule::cron("0 9 * * MON", "Europe/Amsterdam");
        if let Err(error) = ctx.remind("payment", mondays, Insist { letter: msg.letter + 1 }) {
            println!("no further letters: {error}");
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::builder("shop").host::<InvoiceActor>().start().await?;
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
