//! One call for one reply, over one connection or several.

use std::net::SocketAddr;

use bytes::Bytes;
use greenroom_bench_load::{Caller, Client};
use tonic::transport::Channel;

use super::connect;
use super::contract::Body;
use super::contract::echo_client::EchoClient;

/// Connections, which callers have in turn.
pub(crate) struct Unary(Vec<Channel>);

impl Unary {
    pub(crate) async fn connect(at: SocketAddr, connections: usize) -> anyhow::Result<Self> {
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections {
            channels.push(connect(at).await?);
        }
        Ok(Self(channels))
    }
}

impl Client for Unary {
    type Caller = UnaryCaller;

    fn caller(&self, number: usize, payload: usize) -> UnaryCaller {
        let channel = self.0[number % self.0.len()].clone();
        UnaryCaller { client: EchoClient::new(channel), body: Bytes::from(vec![b'x'; payload]) }
    }
}

/// One task's handle to its connection.
pub(crate) struct UnaryCaller {
    client: EchoClient<Channel>,
    body: Bytes,
}

impl Caller for UnaryCaller {
    async fn ask(&mut self) -> anyhow::Result<usize> {
        let reply = self.client.say(Body { body: self.body.clone() }).await?;
        Ok(reply.into_inner().body.len())
    }
}
