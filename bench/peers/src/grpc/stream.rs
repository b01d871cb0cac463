//! One stream in both directions, which carries the calls of all: what gRPC can do at best.
//!
//! There are neither headers nor streams for each call, and what waits travels in few frames. In return the program
//! itself says which reply belongs to which call.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use greenroom_bench_load::{Caller, Client};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::connect;
use super::contract::Numbered;
use super::contract::echo_client::EchoClient;
use crate::slots::Slots;

/// Requests that may wait for the connection; more than any case has in flight.
const WAITING: usize = 1024;

/// The stream.
pub(crate) struct Conversation {
    requests: mpsc::Sender<Numbered>,
    slots: Slots,
}

impl Conversation {
    pub(crate) async fn open(at: SocketAddr) -> anyhow::Result<Self> {
        let (requests, waiting) = mpsc::channel(WAITING);
        let mut client = EchoClient::new(connect(at).await?);
        let replies = client.converse(ReceiverStream::new(waiting)).await?.into_inner();
        let slots = Slots::new();
        tokio::spawn({
            let slots = slots.clone();
            async move {
                let ended = hand_out(replies, &slots).await;
                slots.close(&format!("the stream has ended: {ended:?}"));
            }
        });
        Ok(Self { requests, slots })
    }
}

async fn hand_out(mut replies: Streaming<Numbered>, slots: &Slots) -> anyhow::Result<()> {
    while let Some(Numbered { number, body }) = replies.message().await? {
        slots.fill(number, body)?;
    }
    Ok(())
}

impl Client for Conversation {
    type Caller = Partner;

    fn caller(&self, number: usize, payload: usize) -> Partner {
        let body = Bytes::from(vec![b'x'; payload]);
        Partner { requests: self.requests.clone(), slots: self.slots.clone(), number, body }
    }
}

/// One of those who share the stream.
pub(crate) struct Partner {
    requests: mpsc::Sender<Numbered>,
    slots: Slots,
    number: usize,
    body: Bytes,
}

impl Caller for Partner {
    async fn ask(&mut self) -> anyhow::Result<usize> {
        let number = u32::try_from(self.number)?;
        let request = Numbered { number, body: self.body.clone() };
        self.requests.send(request).await.context("the stream has ended")?;
        Ok(self.slots.reply(number).await?.len())
    }
}
