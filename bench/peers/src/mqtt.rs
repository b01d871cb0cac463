//! MQTT 3.1.1 by rumqttc, through a broker: a topic for questions, and one for the answers of this client.
//!
//! MQTT has no requests. A message begins with the number of its caller, four bytes, as a program would do it; the
//! answer is the message itself.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use greenroom_bench_load::{Caller, Client, announce};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS};

use crate::slots::Slots;

const QUESTIONS: &str = "ask";
const ANSWERS: &str = "answer";
/// Messages that may wait for the connection, or for an acknowledgement: more than any case has in flight.
const WAITING: u16 = 4096;
/// The largest message, with its head.
const PACKET: usize = 1 << 20;
/// The bytes of a caller's number.
const NUMBER: usize = 4;

/// Answers until it is killed.
pub(crate) async fn serve(at: SocketAddr, quality: QoS) -> anyhow::Result<()> {
    let (client, mut events) = subscribed(at, "server", QUESTIONS, quality).await?;
    let answers = topic(ANSWERS, quality);
    announce(&at.to_string())?;
    loop {
        if let Event::Incoming(Packet::Publish(question)) = events.poll().await? {
            // It never waits, or it would wait for itself: fewer questions are in flight than have room.
            client.publish_bytes(&answers, quality, false, question.payload).await?;
        }
    }
}

/// Each quality has topics of its own, as both are there at the same time.
fn topic(name: &str, quality: QoS) -> String {
    format!("bench/{}/{name}", quality as u8)
}

async fn subscribed(
    at: SocketAddr,
    name: &str,
    subject: &str,
    quality: QoS,
) -> anyhow::Result<(AsyncClient, EventLoop)> {
    let mut options = MqttOptions::new(format!("{name}-{quality:?}"), at.ip().to_string(), at.port());
    options.set_inflight(WAITING).set_max_packet_size(PACKET, PACKET);
    let (client, mut events) = AsyncClient::new(options, usize::from(WAITING));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    client.subscribe(topic(subject, quality), quality).await?;
    loop {
        let event = events.poll().await.with_context(|| format!("the broker at {at} does not let {name} in"))?;
        if matches!(event, Event::Incoming(Packet::SubAck(_))) {
            return Ok((client, events));
        }
    }
}

/// A client that is subscribed to its answers.
pub(crate) struct Topics {
    client: AsyncClient,
    quality: QoS,
    slots: Slots,
}

impl Topics {
    pub(crate) async fn connect(at: SocketAddr, quality: QoS) -> anyhow::Result<Self> {
        let (client, events) = subscribed(at, "client", ANSWERS, quality).await?;
        let slots = Slots::new();
        tokio::spawn({
            let slots = slots.clone();
            async move {
                if let Err(error) = hand_out(events, &slots).await {
                    slots.close(&format!("the connection has ended: {error:#}"));
                }
            }
        });
        Ok(Self { client, quality, slots })
    }
}

async fn hand_out(mut events: EventLoop, slots: &Slots) -> anyhow::Result<()> {
    loop {
        if let Event::Incoming(Packet::Publish(answer)) = events.poll().await? {
            let mut body = answer.payload;
            if body.len() < NUMBER {
                bail!("an answer has no number");
            }
            let head = body.split_to(NUMBER);
            slots.fill(u32::from_be_bytes([head[0], head[1], head[2], head[3]]), body)?;
        }
    }
}

impl Client for Topics {
    type Caller = Publisher;

    fn caller(&self, number: usize, payload: usize) -> Publisher {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut message = BytesMut::with_capacity(NUMBER + payload);
        message.put_u32(number);
        message.put_bytes(b'x', payload);
        let Self { client, quality, slots } = self;
        let (client, slots) = (client.clone(), slots.clone());
        Publisher {
            client,
            questions: topic(QUESTIONS, *quality),
            quality: *quality,
            slots,
            number,
            message: message.freeze(),
        }
    }
}

/// One of those who share the connection.
pub(crate) struct Publisher {
    client: AsyncClient,
    questions: String,
    quality: QoS,
    slots: Slots,
    number: u32,
    message: Bytes,
}

impl Caller for Publisher {
    async fn ask(&mut self) -> anyhow::Result<usize> {
        self.client.publish_bytes(self.questions.as_str(), self.quality, false, self.message.clone()).await?;
        Ok(self.slots.reply(self.number).await?.len())
    }
}
