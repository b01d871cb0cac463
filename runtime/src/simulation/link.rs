//! The way to the broker: messages take their time, answers get lost, connections are cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::frost::Frost;
use super::random::Random;
use crate::error::{Error, ErrorKind};
use crate::subject::{Filter, Subject};
use crate::transport::{
    Bucket, Change, Consumer, ConsumerConfig, Entry, Follow, Headers, MemoryBroker, MemoryTransport, Outbound, Outlet,
    Record, Start, Status, Stream, StreamConfig, Subscription, Transport, Watch, WriteError,
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
    links: Arc<Mutex<Vec<Link>>>,
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
        let link = Link::new(self.broker.transport(name), self.way.clone());
        self.links.lock().push(link.clone());
        Arc::new(Slow::new(link))
    }

    /// How its owning connection stands: the first that it made.
    pub(super) fn own(&self) -> Option<Status> {
        self.links.lock().first().map(|link| link.inner.status().borrow().clone())
    }

    /// Cuts its connections at the broker; the node notices so many milliseconds later.
    pub(super) fn cut(&self, unnoticed: u64) {
        for link in self.links.lock().iter() {
            link.unnoticed.store(unnoticed, Ordering::Relaxed);
            self.broker.disconnect(&link.inner);
        }
    }

    /// Lets its connections come back.
    pub(super) fn mend(&self) {
        self.links.lock().iter().for_each(|link| self.broker.reconnect(&link.inner));
    }
}

/// What may happen between a node and the broker. Clones share it.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) random: Random,
    /// The longest that a message takes, in milliseconds.
    pub(super) slowest: u64,
    /// Of a hundred writes so many have no answer, or arrive when nobody waits for them any more.
    pub(super) lossy: Arc<AtomicU64>,
}

impl Way {
    async fn travel(&self) {
        let millis = self.random.between(0, self.slowest + 1);
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    fn loses(&self) -> bool {
        self.random.chance(self.lossy.load(Ordering::Relaxed))
    }
}

/// A connection with a way before it.
struct Slow {
    link: Link,
    out: mpsc::Sender<Out>,
}

/// What is on its way, in order.
enum Out {
    Message(Outbound, Status),
    Outlet(Arc<dyn Outlet>, Status),
    Flush(oneshot::Sender<()>),
}

impl Slow {
    fn new(link: Link) -> Self {
        let (out, mut sent) = mpsc::channel(65_536);
        let way = link.clone();
        tokio::spawn(async move {
            while let Some(next) = sent.recv().await {
                way.way.travel().await;
                match next {
                    // It went with the connection.
                    Out::Message(_, by) | Out::Outlet(_, by) if way.is_cut(&by) => {}
                    Out::Message(message, _) => drop(way.inner.publish(message)),
                    Out::Outlet(outlet, _) => drop(way.inner.collect(outlet)),
                    Out::Flush(done) => drop(done.send(())),
                }
            }
        });
        Self { link, out }
    }
}

impl Transport for Slow {
    fn publish(&self, message: Outbound) -> Result<(), Error> {
        let by = self.link.connected()?;
        let full = |_| Error::new(ErrorKind::Overloaded, "the queue to the connection is full");
        self.out.try_send(Out::Message(message, by)).map_err(full)
    }

    fn collect(&self, outlet: Arc<dyn Outlet>) -> Result<(), Error> {
        let by = self.link.connected()?;
        let full = |_| Error::new(ErrorKind::Overloaded, "the queue to the connection is full");
        self.out.try_send(Out::Outlet(outlet, by)).map_err(full)
    }

    fn subscribe(
        &self,
        filter: &Filter,
        queue: Option<&str>,
        capacity: usize,
    ) -> BoxFuture<'_, Result<Subscription, Error>> {
        let (filter, queue) = (filter.clone(), queue.map(str::to_owned));
        async move {
            self.link.way.travel().await;
            self.link.inner.subscribe(&filter, queue.as_deref(), capacity).await
        }
        .boxed()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let before = self.link.connected()?;
            let (done, wait) = oneshot::channel();
            drop(self.out.send(Out::Flush(done)).await);
            drop(wait.await);
            self.link.answer(&before, ()).await.ok_or_else(gone)
        }
        .boxed()
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.link.believed.lock().hear()
    }

    fn max_payload(&self) -> usize {
        self.link.inner.max_payload()
    }

    fn bucket(&self, name: &str) -> BoxFuture<'_, Result<Box<dyn Bucket>, Error>> {
        let name = name.to_owned();
        async move {
            let inner = self.link.inner.bucket(&name).await?;
            Ok(Box::new(SlowBucket { inner: Arc::from(inner), link: self.link.clone() }) as Box<dyn Bucket>)
        }
        .boxed()
    }

    fn stream(&self, name: &str, config: StreamConfig) -> BoxFuture<'_, Result<Box<dyn Stream>, Error>> {
        let name = name.to_owned();
        async move {
            let inner = self.link.inner.stream(&name, config).await?;
            Ok(Box::new(SlowStream { inner: Arc::from(inner), link: self.link.clone() }) as Box<dyn Stream>)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.link.inner.close()
    }
}

/// One connection: as the broker has it, and as the node believes it to be.
#[derive(Clone)]
struct Link {
    inner: Arc<MemoryTransport>,
    way: Way,
    believed: Arc<Mutex<Believed>>,
    /// How long the node does not notice that it is cut, in milliseconds.
    unnoticed: Arc<AtomicU64>,
}

/// What the node believes, and who is told. Each has a channel of its own: those who share a `watch` are woken in any
/// order.
struct Believed {
    now: Status,
    told: Vec<watch::Sender<Status>>,
}

impl Believed {
    fn hear(&mut self) -> watch::Receiver<Status> {
        let (sender, status) = watch::channel(self.now.clone());
        self.told.push(sender);
        status
    }

    fn tell(&mut self, now: Status) {
        self.told.retain(|one| one.send(now.clone()).is_ok());
        self.now = now;
    }
}

impl Link {
    fn new(inner: MemoryTransport, way: Way) -> Self {
        let now = inner.status().borrow().clone();
        let link = Self {
            inner: Arc::new(inner),
            way,
            believed: Arc::new(Mutex::new(Believed { now, told: Vec::new() })),
            unnoticed: Arc::default(),
        };
        tokio::spawn(link.clone().notice());
        link
    }

    /// Notices how the connection stands.
    async fn notice(self) {
        let mut status = self.inner.status();
        while status.changed().await.is_ok() {
            if self.believed.lock().now.is_connected() {
                if *status.borrow() != Status::Closed {
                    tokio::time::sleep(Duration::from_millis(self.unnoticed.load(Ordering::Relaxed))).await;
                }
                self.believed.lock().tell(Status::Disconnected);
            }
            let now = status.borrow_and_update().clone();
            let changed = self.believed.lock().now != now;
            if changed {
                self.believed.lock().tell(now);
            }
        }
    }

    fn connected(&self) -> Result<Status, Error> {
        let now = self.believed.lock().now.clone();
        if now.is_connected() { Ok(now) } else { Err(gone()) }
    }

    /// Whether this connection is none any more, whatever the node believes.
    fn is_cut(&self, by: &Status) -> bool {
        *self.inner.status().borrow() != *by
    }

    /// Brings an answer back. Of one that is lost the node learns when it notices, or loses its patience.
    async fn answer<T>(&self, by: &Status, answer: T) -> Option<T> {
        self.way.travel().await;
        if !self.is_cut(by) {
            return Some(answer);
        }
        self.no_answer(by).await;
        None
    }

    async fn no_answer(&self, by: &Status) {
        let mut status = self.believed.lock().hear();
        let noticed = async { drop(status.wait_for(|now| now != by).await) };
        tokio::select! { biased; () = noticed => {}, () = tokio::time::sleep(PATIENCE) => {} }
    }

    /// A question there and its answer back. Questions are asked again by whoever asked, so none is lost here but
    /// with its connection.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let by = self.connected()?;
        self.way.travel().await;
        if self.is_cut(&by) {
            self.no_answer(&by).await;
            return Err(gone());
        }
        let answer = question.await;
        self.answer(&by, answer).await.unwrap_or_else(|| Err(gone()))
    }

    /// A write there and its answer back; the write may be lost, and may be late.
    async fn write(
        &self,
        write: impl Future<Output = Result<u64, WriteError>> + Send + 'static,
    ) -> Result<u64, WriteError> {
        let by = self.connected().map_err(WriteError::NotSent)?;
        if self.way.loses() {
            self.lose(&by, write);
            self.no_answer(&by).await;
            return Err(unknown());
        }
        self.way.travel().await;
        if self.is_cut(&by) {
            self.no_answer(&by).await;
            return Err(unknown());
        }
        let answer = write.await;
        self.answer(&by, answer).await.unwrap_or_else(|| Err(unknown()))
    }

    /// It never arrives; or it does and its answer does not; or it does when nobody waits for it any more.
    fn lose(&self, by: &Status, write: impl Future<Output = Result<u64, WriteError>> + Send + 'static) {
        let late = match self.way.random.between(0, 3) {
            0 => return,
            1 => 0,
            _ => self.way.random.between(100, 4_000),
        };
        let (link, by) = (self.clone(), by.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(late)).await;
            // What the broker has taken from a socket it stores, though the socket be gone by then.
            if !link.is_cut(&by) || late < 1_000 {
                drop(write.await);
            }
        });
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
        expect: Option<u64>,
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

    fn watch(&self, filters: Vec<Filter>) -> BoxFuture<'_, Result<Watch, Error>> {
        async move {
            let mut inner = self.link.ask(self.inner.watch(filters)).await?;
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

    fn follow_headers(&self, filters: Vec<Filter>, start: Start) -> BoxFuture<'_, Result<Follow, Error>> {
        self.inner.follow_headers(filters, start)
    }

    fn end(&self) -> BoxFuture<'_, Result<u64, Error>> {
        async move { self.link.ask(async { self.inner.end().await }).await }.boxed()
    }

    fn remove(&self, sequence: u64) -> BoxFuture<'_, Result<bool, Error>> {
        async move { self.link.ask(async { self.inner.remove(sequence).await }).await }.boxed()
    }

    fn consumer(&self, name: &str, config: ConsumerConfig) -> BoxFuture<'_, Result<Consumer, Error>> {
        self.inner.consumer(name, config)
    }

    fn consumers(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async move { self.link.ask(async { self.inner.consumers().await }).await }.boxed()
    }

    fn remove_consumer(&self, name: &str) -> BoxFuture<'_, Result<(), Error>> {
        let name = name.to_owned();
        async move { self.link.ask(async { self.inner.remove_consumer(&name).await }).await }.boxed()
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "there is no connection")
}

fn unknown() -> WriteError {
    WriteError::Unknown(Error::new(ErrorKind::Unknown, "no answer"))
}
