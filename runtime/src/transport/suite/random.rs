//! Two transports under the same operations, chosen at random: their answers must be equal.

use super::streams::body;
use super::*;
use crate::transport::{
    Consumer, ConsumerConfig, Delivery, Headers, Record, Retention, Stream, StreamConfig, WriteError,
};

/// Runs so many operations of this seed on streams of both transports, and panics with the seed
/// where their answers differ. The streams must be new.
pub async fn random(one: &dyn Transport, other: &dyn Transport, seed: u64, operations: usize) {
    for retention in [Retention::Keep, Retention::WorkQueue] {
        let mut pair = Pair::open(one, other, seed, retention).await;
        for number in 0..operations / 2 {
            let operation = pair.operation().await;
            if let Err(difference) = operation {
                panic!("seed {seed}, {retention:?}, operation {number}: {difference}");
            }
        }
    }
}

const TYPES: u64 = 3;
const KEYS: u64 = 5;

/// The same stream and the same consumers, on both.
struct Pair {
    random: Random,
    root: String,
    retention: Retention,
    streams: [Box<dyn Stream>; 2],
    consumers: Vec<[Consumer; 2]>,
    /// What is given out and not acknowledged.
    held: Vec<[Delivery; 2]>,
    last: u64,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

impl Pair {
    async fn open(one: &dyn Transport, other: &dyn Transport, seed: u64, retention: Retention) -> Self {
        let root = format!("random{seed}.{retention:?}").to_lowercase();
        let name = root.replace('.', "-");
        let config = StreamConfig::new([Filter::of(format!("{root}.>"))]).retention(retention);
        let mut streams = Vec::new();
        for transport in [one, other] {
            streams.push(soon("open a stream", transport.stream(&name, config.clone())).await.expect("a stream"));
        }
        let streams: [Box<dyn Stream>; 2] = streams.try_into().unwrap_or_else(|_| unreachable!("two were opened"));
        let mut consumers = Vec::new();
        // Consumers of a work queue may not share subjects.
        let filters = match retention {
            Retention::Keep => [vec![format!("{root}.0.*"), format!("{root}.1.*")], vec![format!("{root}.*.1")]],
            Retention::WorkQueue => [vec![format!("{root}.0.*"), format!("{root}.1.*")], vec![format!("{root}.2.*")]],
        };
        for (name, filters) in ["a", "b"].into_iter().zip(filters) {
            let config = ConsumerConfig::new(filters.into_iter().map(Filter::of)).fetch(1).max_deliver(4);
            let mut pair = Vec::new();
            for stream in &streams {
                pair.push(soon("open a consumer", stream.consumer(name, config.clone())).await.expect("a consumer"));
            }
            consumers.push(pair.try_into().unwrap_or_else(|_| unreachable!("two were opened")));
        }
        Self { random: Random(seed), root, retention, streams, consumers, held: Vec::new(), last: 0 }
    }

    async fn operation(&mut self) -> Result<(), String> {
        match self.random.below(20) {
            0..=7 => self.append().await,
            8..=9 => self.last().await,
            10 => self.next().await,
            11 => self.read().await,
            12..=15 => self.deliver().await,
            _ => self.acknowledge().await,
        }
    }

    fn subject(&mut self) -> Subject {
        subject(&format!("{}.{}.{}", self.root, self.random.below(TYPES), self.random.below(KEYS)))
    }

    async fn append(&mut self) -> Result<(), String> {
        let name = self.subject();
        let [one, other] = &self.streams;
        let last = soon("last", one.last(&name)).await.expect("an answer").map_or(0, |record| record.sequence);
        let expect = match self.random.below(5) {
            0 => None,
            1 => Some(self.random.below(self.last + 2)),
            _ => Some(last),
        };
        let mut headers = Headers::new();
        headers.push("Shop-Number", self.random.below(100).to_string());
        let body = Bytes::from(self.random.below(1_000).to_string());
        let appended = [
            soon("append", one.append(&name, expect, headers.clone(), body.clone())).await,
            soon("append", other.append(&name, expect, headers, body)).await,
        ];
        self.last += u64::from(appended[0].is_ok());
        let said = appended.map(|outcome| match outcome {
            Ok(sequence) => format!("stored as {sequence}"),
            Err(WriteError::Conflict) => "a conflict".to_owned(),
            Err(other) => format!("{other:?}"),
        });
        same(&format!("append {name} after {expect:?}"), said)
    }

    async fn last(&mut self) -> Result<(), String> {
        let name = self.subject();
        let mut said = Vec::new();
        for stream in &self.streams {
            said.push(shown(soon("last", stream.last(&name)).await.expect("an answer").as_ref()));
        }
        same(&format!("the last of {name}"), said)
    }

    async fn next(&mut self) -> Result<(), String> {
        let (kind, from) = (self.random.below(TYPES), self.random.below(self.last + 2));
        let filter = Filter::of(format!("{}.{kind}.*", self.root));
        let mut said = Vec::new();
        for stream in &self.streams {
            said.push(shown(soon("next", stream.next(&filter, from)).await.expect("an answer").as_ref()));
        }
        same(&format!("the next of {filter} from {from} on"), said)
    }

    async fn read(&mut self) -> Result<(), String> {
        let name = self.subject();
        let Some(to) = soon("last", self.streams[0].last(&name)).await.expect("an answer") else { return Ok(()) };
        let from = self.random.below(to.sequence + 1);
        let mut said = Vec::new();
        for stream in &self.streams {
            let records = soon("read", stream.read(&name, from, to.sequence)).await;
            let records = records.map_err(|error| error.to_string())?;
            said.push(records.iter().map(|record| shown(Some(record))).collect::<Vec<_>>().join("; "));
        }
        same(&format!("{name} from {from} to {}", to.sequence), said)
    }

    async fn deliver(&mut self) -> Result<(), String> {
        let which = self.random.below(2) as usize;
        let [one, other] = &mut self.consumers[which];
        let first = soon("a delivery", one.try_next()).await.expect("an answer");
        let mut second = soon("a delivery", other.try_next()).await.expect("an answer");
        // A server tells its consumers of a new record just after it has acknowledged it.
        for _ in 0..200 {
            if first.is_some() && second.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                second = soon("a delivery", other.try_next()).await.expect("an answer");
            }
        }
        let said = [&first, &second].map(|delivery| match delivery {
            Some(delivery) => format!("{} for the {}th time", shown(Some(&delivery.record)), delivery.delivered),
            None => "nothing".to_owned(),
        });
        same(&format!("a delivery to consumer {which}"), said)?;
        self.held.extend(first.zip(second).map(|(first, second)| [first, second]));
        Ok(())
    }

    async fn acknowledge(&mut self) -> Result<(), String> {
        if self.held.is_empty() {
            return Ok(());
        }
        let which = self.random.below(self.held.len() as u64) as usize;
        let held = self.held.swap_remove(which);
        let word = self.random.below(8);
        for delivery in &held {
            let said = async {
                match word {
                    0..=4 => delivery.ack().await,
                    5 => delivery.term("at random").await,
                    _ => delivery.nak(Duration::ZERO).await,
                }
            };
            soon("a confirmation", said).await.map_err(|error| error.to_string())?;
        }
        if word <= 5 && self.retention == Retention::WorkQueue {
            self.forgotten(&held[0].record).await;
        }
        Ok(())
    }

    /// A server removes what is done just after it has confirmed it.
    async fn forgotten(&self, record: &Record) {
        let filter = Filter::of(record.subject.as_str());
        for stream in &self.streams {
            let gone = async {
                let at = |found: &Record| found.sequence == record.sequence;
                while stream.next(&filter, record.sequence).await.expect("an answer").as_ref().is_some_and(at) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            soon("what is done is forgotten", gone).await;
        }
    }
}

/// All of a record but its time, which no two brokers agree on.
fn shown(record: Option<&Record>) -> String {
    match record {
        Some(record) => {
            let number = record.headers.get("Shop-Number").unwrap_or("no number");
            format!("{} on {}: {} ({number})", record.sequence, record.subject, body(record))
        }
        None => "none".to_owned(),
    }
}

fn same(what: &str, said: impl AsRef<[String]>) -> Result<(), String> {
    match said.as_ref() {
        [one, other] if one == other => Ok(()),
        said => Err(format!("{what}: {said:?}")),
    }
}
