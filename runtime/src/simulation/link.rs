//! The way to the broker: messages take their time, answers get lost, connections are cut.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::frost::Frost;
use super::random::Random;
use crate::error::{Error, ErrorKind};
use crate::subject::{Filter, Subject};
use crate::transport::{
    Bucket, Change, Consumer, ConsumerConfig, Entry, Follow, Headers, MemoryBroker, MemoryTransport, Outbound, Record,
    Start, Status, Stream, StreamConfig, Subscription, Transport, Watch, WriteError,
};

/// How long the client waits for an answer, as the real one does.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a simulated node is built with.
#[derive(Clone)]
pub(crate) struct Rig {
    pub(crate) seed: u64,
    pub(crate) frost: Frost,
    broker: MemoryBroker,
    way: Way,
    /// Its connections, once it has them: for whoever cuts them.
    links: Arc<parking_lot::Mutex<Vec<Arc<MemoryTransport>>>>,
}

impl Rig {
    pub(super) fn new(broker: &MemoryBroker, way: &Way) -> Self {
        Self {
            seed: way.random.next(),
            frost: Frost::default(),
            broker: broker.clone(),
            way: way.clone(),
            links: Arc::default(),
        }
    }

    /// A connection of the node.
    pub(crate) fn connect(&self, name: &str) -> Arc<dyn Transport> {
        let inner = Arc::new(self.broker.transport(name));
        self.links.lock().push(inner.clone());
        Arc::new(Slow::new(inner, self.way.clone()))
    }

    /// How its owning connection stands: the first that it made.
    pub(super) fn own(&self) -> Option<Status> {
        self.links.lock().first().map(|link| link.status().borrow().clone())
    }

    /// Cuts its connections, or lets them come back.
    pub(super) fn cut(&self, cut: bool) {
        for link in self.links.lock().iter() {
            if cut { self.broker.disconnect(link) } else { self.broker.reconnect(link) }
        }
    }
}

/// What may happen between a node and the broker. Clones share it.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) random: Random,
    /// The longest that a message takes, in milliseconds.
    pub(super) slowest: u64,
    /// Of a hundred writes so many have no answer, or arrive when nobody waits for them any more.
    pub(super) lossy: Arc<std::sync::atomic::AtomicU64>,
}

impl Way {
    async fn travel(&self) {
        let millis = self.random.between(0, self.slowest + 1);
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    fn loses(&self) -> bool {
        self.random.chance(self.lossy.load(std::sync::atomic::Ordering::Relaxed))
    }
}

/// A connection with a way before it.
struct Slow {
    inner: Arc<MemoryTransport>,
    way: Way,
    out: mpsc::Sender<Out>,
    told: Told,
}

/// Who is told how a connection stands. Each has a channel of its own: those who share a `watch` are woken in any order.
type Told = Arc<parking_lot::Mutex<Vec<watch::Sender<Status>>>>;

async fn tell(mut status: watch::Receiver<Status>, told: Told) {
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        told.lock().retain(|one| one.send(now.clone()).is_ok());
    }
}

/// What is on its way, in order.
enum Out {
    Message(Outbound, Status),
    Flush(oneshot::Sender<()>),
}

impl Slow {
    fn new(inner: Arc<MemoryTransport>, way: Way) -> Self {
        let (out, mut sent) = mpsc::channel(65_536);
        let (link, pace) = (inner.clone(), way.clone());
        tokio::spawn(async move {
            while let Some(next) = sent.recv().await {
                pace.travel().await;
                match next {
                    // It went with the connection.
                    Out::Message(_, by) if *link.status().borrow() != by => {}
                    Out::Message(message, _) => drop(link.publish(message)),
                    Out::Flush(done) => drop(done.send(())),
                }
            }
        });
        let told = Told::default();
        tokio::spawn(tell(inner.status(), told.clone()));
        Self { inner, way, out, told }
    }

    fn link(&self) -> Link {
        Link { inner: self.inner.clone(), way: self.way.clone(), told: self.told.clone() }
    }
}

impl Transport for Slow {
    fn publish(&self, message: Outbound) -> Result<(), Error> {
        let by = self.inner.status().borrow().clone();
        if !by.is_connected() {
            return self.inner.publish(message);
        }
        let full = |_| Error::new(ErrorKind::Overloaded, "the queue to the connection is full");
        self.out.try_send(Out::Message(message, by)).map_err(full)
    }

    fn subscribe(
        &self,
        filter: &Filter,
        queue: Option<&str>,
        capacity: usize,
    ) -> BoxFuture<'_, Result<Subscription, Error>> {
        let (filter, queue) = (filter.clone(), queue.map(str::to_owned));
        async move {
            self.way.travel().await;
            self.inner.subscribe(&filter, queue.as_deref(), capacity).await
        }
        .boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let link = self.link();
            let before = link.connected()?;
            let (done, wait) = oneshot::channel();
            drop(self.out.send(Out::Flush(done)).await);
            drop(wait.await);
            self.way.travel().await;
            link.still(&before).map_err(|()| gone())
        }
        .boxed()
    }

    fn status(&self) -> watch::Receiver<Status> {
        let (sender, status) = watch::channel(self.inner.status().borrow().clone());
        self.told.lock().push(sender);
        status
    }

    fn max_payload(&self) -> usize {
        self.inner.max_payload()
    }

    fn bucket(&self, name: &str) -> BoxFuture<'_, Result<Box<dyn Bucket>, Error>> {
        let name = name.to_owned();
        async move {
            let inner = self.inner.bucket(&name).await?;
            Ok(Box::new(SlowBucket { inner: Arc::from(inner), link: self.link() }) as Box<dyn Bucket>)
        }
        .boxed()
    }

    fn stream(&self, name: &str, config: StreamConfig) -> BoxFuture<'_, Result<Box<dyn Stream>, Error>> {
        let name = name.to_owned();
        async move {
            let inner = self.inner.stream(&name, config).await?;
            Ok(Box::new(SlowStream { inner: Arc::from(inner), link: self.link() }) as Box<dyn Stream>)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// What buckets and streams need of their connection.
#[derive(Clone)]
struct Link {
    inner: Arc<MemoryTransport>,
    way: Way,
    told: Told,
}

impl Link {
    fn connected(&self) -> Result<Status, Error> {
        let now = self.inner.status().borrow().clone();
        if now.is_connected() { Ok(now) } else { Err(gone()) }
    }

    fn still(&self, before: &Status) -> Result<(), ()> {
        if *self.inner.status().borrow() == *before { Ok(()) } else { Err(()) }
    }

    /// A question there and its answer back. Questions are asked again by whoever asked, so none is lost here but
    /// with its connection.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let before = self.connected()?;
        self.way.travel().await;
        self.still(&before).map_err(|()| gone())?;
        let answer = question.await;
        self.way.travel().await;
        self.still(&before).map_err(|()| gone())?;
        answer
    }

    /// A write there and its answer back; the write may be lost, and may be late.
    async fn write(
        &self,
        write: impl Future<Output = Result<u64, WriteError>> + Send + 'static,
    ) -> Result<u64, WriteError> {
        let before = self.connected().map_err(WriteError::NotSent)?;
        if self.way.loses() {
            let (link, sent) = (self.clone(), before.clone());
            let late = match self.way.random.between(0, 3) {
                // It never arrives; or it does and its answer does not; or it does when nobody waits any more.
                0 => None,
                1 => Some(0),
                _ => Some(self.way.random.between(100, 4_000)),
            };
            tokio::spawn(async move {
                if let Some(millis) = late {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    // What the broker has taken from a socket it stores, though the socket be gone.
                    if link.still(&sent).is_ok() || millis < 1_000 {
                        drop(write.await);
                    }
                }
            });
            let (sender, mut status) = watch::channel(self.inner.status().borrow().clone());
            self.told.lock().push(sender);
            let cut = async { drop(status.wait_for(|now| *now != before).await) };
            tokio::select! { biased; () = cut => {}, () = tokio::time::sleep(PATIENCE) => {} }
            return Err(unknown());
        }
        self.way.travel().await;
        if self.still(&before).is_err() {
            return Err(unknown());
        }
        let answer = write.await;
        self.way.travel().await;
        self.still(&before).map_err(|()| unknown())?;
        answer
    }
}

struct SlowBucket {
    inner: Arc<dyn Bucket>,
    link: Link,
}

impl Bucket for SlowBucket {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, Error>> {
        let key = key.to_owned();
        async move { self.link.ask(async { self.inner.get(&key).await }).await }.boxed()
    }

    fn write(
        &self,
        key: &str,
        value: Bytes,
        expect: u64,
        ttl: Option<Duration>,
    ) -> BoxFuture<'_, Result<u64, WriteError>> {
        let (inner, key) = (self.inner.clone(), key.to_owned());
        async move { self.link.write(async move { inner.write(&key, value, expect, ttl).await }).await }.boxed()
    }

    fn delete(&self, key: &str, expect: u64) -> BoxFuture<'_, Result<u64, WriteError>> {
        let (inner, key) = (self.inner.clone(), key.to_owned());
        async move { self.link.write(async move { inner.delete(&key, expect).await }).await }.boxed()
    }

    fn made(&self) -> BoxFuture<'_, Result<Option<String>, Error>> {
        async move { self.link.ask(async { self.inner.made().await }).await }.boxed()
    }

    fn watch(&self) -> BoxFuture<'_, Result<Watch, Error>> {
        async move {
            let mut inner = self.link.ask(self.inner.watch()).await?;
            let (sender, changes) = mpsc::channel::<Change>(256);
            let way = self.link.way.clone();
            tokio::spawn(async move {
                while let Some(change) = inner.next().await {
                    way.travel().await;
                    if sender.send(change).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Watch::new(changes))
        }
        .boxed()
    }
}

struct SlowStream {
    inner: Arc<dyn Stream>,
    link: Link,
}

impl Stream for SlowStream {
    fn append(
        &self,
        subject: &Subject,
        expect: Option<u64>,
        headers: Headers,
        body: Bytes,
    ) -> BoxFuture<'_, Result<u64, WriteError>> {
        let (inner, subject) = (self.inner.clone(), subject.clone());
        async move { self.link.write(async move { inner.append(&subject, expect, headers, body).await }).await }.boxed()
    }

    fn last(&self, subject: &Subject) -> BoxFuture<'_, Result<Option<Record>, Error>> {
        let subject = subject.clone();
        async move { self.link.ask(async { self.inner.last(&subject).await }).await }.boxed()
    }

    fn next(&self, filter: &Filter, from: u64) -> BoxFuture<'_, Result<Option<Record>, Error>> {
        let filter = filter.clone();
        async move { self.link.ask(async { self.inner.next(&filter, from).await }).await }.boxed()
    }

    fn read(&self, subject: &Subject, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<Record>, Error>> {
        let subject = subject.clone();
        async move { self.link.ask(async { self.inner.read(&subject, from, to).await }).await }.boxed()
    }

    fn follow(&self, filters: Vec<Filter>, start: Start) -> BoxFuture<'_, Result<Follow, Error>> {
        self.inner.follow(filters, start)
    }

    fn consumer(&self, name: &str, config: ConsumerConfig) -> BoxFuture<'_, Result<Consumer, Error>> {
        self.inner.consumer(name, config)
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "there is no connection")
}

fn unknown() -> WriteError {
    WriteError::Unknown(Error::new(ErrorKind::Unknown, "no answer"))
}
