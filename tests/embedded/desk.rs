//! A service whose instances say who they are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use greenroom::prelude::*;

use super::gate::Gate;

/// Answers whoever asks.
#[contract(service, name = "desk", messages(Who, Stay, Leave, Crack, Hint))]
pub(super) struct Desk;

#[message(Desk, ask, reply = Served)]
pub(super) struct Who;

/// Passes a gate first.
#[message(Desk, ask, reply = Served)]
pub(super) struct Stay {
    pub gate: String,
}

/// Panics.
#[message(Desk, ask)]
pub(super) struct Leave {
    pub why: String,
}

/// Passes a gate, and panics; then so many activations on its node fail.
#[message(Desk, ask)]
pub(super) struct Crack {
    pub gate: String,
    pub activations: u32,
}

#[message(Desk, tell)]
pub(super) struct Hint {
    pub gate: String,
}

/// Who answered.
#[data]
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Served {
    pub node: String,
    pub instance: u64,
    /// How many this activation has served, this one among them.
    pub served: u64,
}

/// By node: how many activations are to fail yet.
static BROKEN: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(Mutex::default);

pub(super) struct DeskService {
    instance: u64,
    served: u64,
}

#[service(Desk)]
impl DeskService {
    fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let node = ctx.node()?;
        if let Some(left) = BROKEN.lock().expect("no panic in it").get_mut(node.id()).filter(|left| **left > 0) {
            *left -= 1;
            return Err(Error::new(ErrorKind::Unavailable, "the desk is broken"));
        }
        Ok(Self { instance: LAST.fetch_add(1, Ordering::Relaxed), served: 0 })
    }

    #[ask]
    fn who(&mut self, _: Who, ctx: &mut Context<'_, Self>) -> Served {
        self.serve(ctx)
    }

    #[ask]
    async fn stay(&mut self, msg: Stay, ctx: &mut Context<'_, Self>) -> Served {
        if let Some(gate) = Gate::named(&msg.gate) {
            gate.pass().await;
        }
        self.serve(ctx)
    }

    #[ask]
    async fn leave(&mut self, msg: Leave) {
        panic!("{}", msg.why);
    }

    #[ask]
    async fn crack(&mut self, msg: Crack, ctx: &mut Context<'_, Self>) {
        if let Some(gate) = Gate::named(&msg.gate) {
            gate.pass().await;
        }
        let node = ctx.node().map(|node| node.id().to_owned()).unwrap_or_default();
        BROKEN.lock().expect("no panic in it").insert(node, msg.activations);
        panic!("the desk breaks");
    }

    #[tell]
    async fn hint(&mut self, msg: Hint) {
        if let Some(gate) = Gate::named(&msg.gate) {
            gate.pass().await;
        }
    }

    fn serve(&mut self, ctx: &mut Context<'_, Self>) -> Served {
        self.served += 1;
        let node = ctx.node().map(|node| node.id().to_owned()).unwrap_or_default();
        Served { node, instance: self.instance, served: self.served }
    }
}
