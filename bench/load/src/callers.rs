//! A closed loop: each caller asks, waits for its reply, and asks again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::sync::Barrier;

use crate::conversation::{Order, Spell};
use crate::times::Times;

/// A system's side that asks, with its connections.
pub trait Client {
    /// What one task asks with.
    type Caller: Caller;

    /// The caller of this number, which sends so many bytes each time. Numbers are below those in flight.
    fn caller(&self, number: usize, payload: usize) -> Self::Caller;
}

/// One task's way to ask.
pub trait Caller: Send + 'static {
    /// Sends the bytes once and gives the length of what came back.
    fn ask(&mut self) -> impl Future<Output = anyhow::Result<usize>> + Send;
}

/// Lets callers ask for a while, and waits until all have their last reply.
pub(crate) async fn measure<C: Client>(client: &C, order: Order) -> anyhow::Result<Spell> {
    let Order { payload, in_flight, millis } = order;
    let (ready, over) = (Arc::new(Barrier::new(in_flight + 1)), Arc::new(AtomicBool::new(false)));
    let times = Times::new()?;
    let tasks: Vec<_> = (0..in_flight)
        .map(|number| {
            let (mut caller, mut own) = (client.caller(number, payload), times.own());
            let (ready, over) = (ready.clone(), over.clone());
            tokio::spawn(async move {
                ready.wait().await;
                let mut began = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    let got = caller.ask().await?;
                    ensure!(got == payload, "{payload} bytes went, {got} came back");
                    // One look at the clock for both: the end of this call is the beginning of the next.
                    let ended = Instant::now();
                    own.keep(ended - began);
                    began = ended;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    ready.wait().await;
    let began = Instant::now();
    tokio::time::sleep(Duration::from_millis(millis)).await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.context("a caller panicked")??;
    }
    Ok(times.spell(began.elapsed()))
}
