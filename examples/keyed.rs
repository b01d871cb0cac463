//! A keyed actor with a state cell: one account for each key, and a typed no.
//!
//! ```text
//! cargo run -p greenroom-examples --example keyed
//! ```

use greenroom::prelude::*;

/// A bank account; its key is its owner.
#[contract(messages(Deposit, Withdraw, Balance), event = AccountEvent)]
struct Account;

#[message(Account, ask, reply = u64)]
struct Deposit {
    cents: u64,
}

#[message(Account, ask, reply = u64, refusal = Overdrawn)]
struct Withdraw {
    cents: u64,
}

#[message(Account, read, reply = u64)]
struct Balance;

#[refusal(code = 402)]
#[derive(thiserror::Error)]
#[error("short by {short} cents")]
struct Overdrawn {
    short: u64,
}

#[event(Account)]
enum AccountEvent {
    Deposited(u64),
    Withdrawn(u64),
}

#[data]
#[derive(Default)]
struct Ledger {
    cents: u64,
}

impl State for Ledger {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited(cents) => self.cents += cents,
            AccountEvent::Withdrawn(cents) => self.cents -= cents,
        }
    }
}

struct AccountActor {
    ledger: Durable<Ledger>,
}

#[actor(Account, state = ledger)]
impl AccountActor {
    fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { ledger: ctx.volatile()? })
    }

    #[read]
    fn balance(&self, _: Balance) -> u64 {
        self.ledger.cents
    }

    #[ask]
    fn deposit(&mut self, msg: Deposit) -> u64 {
        self.ledger.emit(AccountEvent::Deposited(msg.cents));
        self.ledger.cents
    }

    #[ask]
    fn withdraw(&mut self, msg: Withdraw) -> Result<u64, Overdrawn> {
        if msg.cents > self.ledger.cents {
            return Err(Overdrawn { short: msg.cents - self.ledger.cents });
        }
        self.ledger.emit(AccountEvent::Withdrawn(msg.cents));
        Ok(self.ledger.cents)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::local("bank").host::<AccountActor>().start().await?;
    let (ada, bob) = (node.actor::<Account>("ada"), node.actor::<Account>("bob"));
    println!("ada has {} cents, bob {}", ada.ask(Deposit { cents: 500 }).await?, bob.ask(Balance).await?);
    // The actor's own no is not a failure of the call: the two never look alike.
    match ada.ask(Withdraw { cents: 900 }).await {
        Ok(left) => println!("{left} cents left"),
        Err(AskError::Refused(Overdrawn { short })) => println!("refused: short by {short} cents"),
        Err(AskError::Failed(error)) => println!("it could not be asked ({}): {error}", error.kind()),
    }
    assert_eq!(ada.ask(Withdraw { cents: 200 }).await?, 300);
    Ok(node.drain().await?)
}
