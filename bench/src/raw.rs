//! Appends without greenroom's actors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use greenroom::prelude::*;
use greenroom::subject::{Name, Subject, Subjects};
use greenroom::transport::{Connect, Headers, NatsTransport, Stream, StreamConfig, Transport};

use crate::durable::{Keep, Kept, Run};

/// What appends.
#[derive(Clone, Copy)]
pub(crate) enum By {
    /// The same transport as a node's.
    Transport,
    /// The client library beneath it, as its documentation has it: its connection lives in the callers' own runtime.
    Library,
}

/// Appends with the headers and bytes of a real record.
#[derive(Clone)]
pub(crate) struct Raw {
    library: async_nats::jetstream::Context,
    stream: Arc<dyn Stream>,
    subjects: Subjects,
    headers: Headers,
    body: bytes::Bytes,
    /// Ends the connection when it is dropped.
    _transport: Arc<NatsTransport>,
}

impl Raw {
    /// Learns from the journal of an actor what a record looks like.
    pub(crate) async fn open(url: &str, node: &Node) -> anyhow::Result<Self> {
        let model = node.actor::<Kept>("model").within(Duration::from_secs(20));
        for _ in 0..5 {
            // A node that has just started owns nothing yet.
            model.ask(Keep { by: 1 }).await?;
        }
        let transport = NatsTransport::connect(Connect::try_from(url)?.name("raw")).await?;
        let subjects = Subjects::new(Name::new("bench")?);
        let config = StreamConfig::new([subjects.journals("kept")]);
        let stream = transport.stream(&subjects.journal_stream("kept"), config).await?;
        let subject = subjects.journal("kept", &Key::new("model")?);
        let last = stream.last(&subject).await?.context("the model has a journal")?;
        ensure!(
            !String::from_utf8_lossy(&last.body).contains("\"snapshot\""),
            "the model's last record has no snapshot"
        );
        // A stream of its own: these are no records of actors.
        let subjects = Subjects::new(Name::new("raw")?);
        let config = StreamConfig::new([subjects.journals("kept")]);
        let stream = transport.stream(&subjects.journal_stream("kept"), config).await?;
        Ok(Self {
            library: async_nats::jetstream::new(async_nats::connect(url).await?),
            stream: stream.into(),
            subjects,
            headers: last.headers,
            body: last.body,
            _transport: Arc::new(transport),
        })
    }

    /// Appends to each subject in turn, over its last record; the time of each. What is there already is looked up before
    /// the clock runs, as the actors are in memory before it does.
    pub(crate) async fn appends(&self, by: By, keys: &[String], run: &Run) -> anyhow::Result<Vec<Duration>> {
        let mut places = Vec::new();
        for key in keys {
            let subject = self.subjects.journal("kept", &Key::new(key)?);
            let last = self.stream.last(&subject).await?.map_or(0, |record| record.sequence);
            places.push((subject, last));
        }
        let mut times = Vec::new();
        run.begin().await;
        while !run.is_over() {
            for (subject, last) in &mut places {
                let began = Instant::now();
                *last = self.append(by, subject, *last).await?;
                times.push(began.elapsed());
            }
        }
        Ok(times)
    }

    async fn append(&self, by: By, subject: &Subject, last: u64) -> anyhow::Result<u64> {
        match by {
            By::Transport => {
                let append = self.stream.append(subject, Some(last), self.headers.clone(), self.body.clone());
                append.await.map_err(|error| anyhow::anyhow!("an append failed: {error:?}"))
            }
            By::Library => {
                let mut headers = async_nats::HeaderMap::new();
                self.headers.iter().for_each(|(name, value)| headers.append(name, value));
                headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
                let sent = self.library.publish_with_headers(subject.to_string(), headers, self.body.clone());
                Ok(sent.await?.await?.sequence)
            }
        }
    }
}
