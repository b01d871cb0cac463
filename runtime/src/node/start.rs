//! Starting a node, and draining it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::builder::{Broker, NodeBuilder};
use super::cluster::Located;
use super::discovery::{ClusterInfo, Discovery};
use super::driver::{self, Driver, Feed, Over};
use super::hosted::Hosted;
use super::keeper::{Job, Keeper, Word};
use super::probe::{self, Mapping};
use super::surroundings::{Life, Settings, Surroundings};
use super::{Inner, Node, begin_drain, serve};
use crate::error::{Error, ErrorKind};
use crate::ownership::{Config, Entry, HostInfo, Key as RecordKey, Meta, WIRE};
use crate::subject::{FLUSH_VERB, Filter, Name, Subjects};
use crate::supervision::{ChildSpec, Tree};
use crate::transport::{
    Bucket, Connect, Inbound, NatsTransport, Outbound, Status, Subscription, Transport, WriteError,
};
use crate::wire::{SUBJECT, reply_headers};

/// Messages from other nodes that may wait to be dispatched.
const NODE_CAPACITY: usize = 65_536;
/// Calls of outsiders that may wait for one instance, or to be passed on.
const CALL_CAPACITY: usize = 16_384;
/// Partitions of an app that is born without saying.
const PARTITIONS: u16 = 64;
/// How long a background task may take to notice that it is stopped.
const TASK_GRACE: Duration = Duration::from_secs(1);
/// How long a start waits for its share of the partitions.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// How long of that it waits for partitions that others hold: their holder may be dead, and then
/// only its lease ends that.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(3);

/// The node's connections: one whose loss is the node's loss, one for leases and claims.
struct Links {
    own: Arc<dyn Transport>,
    lease: Arc<dyn Transport>,
}

pub(super) async fn start(mut builder: NodeBuilder) -> Result<Node, Error> {
    let name = node_name(builder.name.as_deref())?;
    let seed = fresh_seed(&name);
    let incarnation = format!("{:08x}", (seed ^ (seed >> 32)) as u32);
    let id = format!("{name}-{incarnation}");
    let subjects = Subjects::new(Name::new(&builder.app)?);
    let links = connect(&builder.broker, &id).await?;
    let bucket: Arc<dyn Bucket> = Arc::from(links.lease.bucket(&subjects.ownership_bucket()).await?);
    let partitions = partitions(&*bucket, &builder).await?;
    let settings = Settings {
        budget: builder.budget,
        mailbox: builder.mailbox,
        in_flight: builder.in_flight,
        payload: builder.payload.min(links.own.max_payload()),
        activations: builder.activations,
        partitions,
    };
    let around = Arc::new(Surroundings::new(id, seed, settings, subjects, links.own.clone())?);
    let tree = Tree::start(around.runtime.clone(), &around.id).await?;
    tree.on_give_up(|gave_up| tracing::error!(?gave_up, "a group of children is given up and stays stopped"));
    let children = host(&mut builder, &around)?;
    let (feed, inputs) = Feed::channel();
    let (jobs, keeper_jobs) = mpsc::channel(4_096);
    let (over_sender, over) = watch::channel(None);
    let inner = Arc::new(Inner {
        around: around.clone(),
        tree,
        feed: feed.clone(),
        over,
        stop: CancellationToken::new(),
        leave_services: CancellationToken::new(),
        services: TaskTracker::new(),
        threads: parking_lot::Mutex::new(Vec::new()),
    });
    around.node.get_or_init(|| Arc::downgrade(&inner));
    let node = Node { inner: inner.clone() };
    for (name, restart, children) in children {
        inner.tree.group(name, restart, children).await?.started().await?;
    }
    listen(&inner, &feed, &jobs).await?;
    around.runtime.spawn(Keeper::new(around.clone(), feed).run(keeper_jobs));
    let config = machine_config(&builder, &around, &name, &incarnation);
    let driver = Driver {
        around: around.clone(),
        machine: driver::machine(config),
        bucket,
        own: links.own.status(),
        lease: links.lease.status(),
        inputs,
        jobs,
        over: over_sender,
        lease_ttl: builder.lease_ttl,
    };
    spawn_driver(&inner, driver, links.lease)?;
    settle(&inner).await?;
    listen_for_services(&inner).await?;
    start_tasks(&mut builder, &node).await?;
    Ok(node)
}

fn node_name(given: Option<&str>) -> Result<String, Error> {
    let from_host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let raw = given
        .map(str::to_owned)
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(from_host)
        .unwrap_or_else(|| "node".to_owned());
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if given.is_some() && (raw.is_empty() || raw.len() > 64 || !raw.chars().all(sound)) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{raw:?} is no name for a node: write letters, digits, '-' and '_', at most 64"),
        ));
    }
    let name: String = raw.chars().map(|c| if sound(c) { c } else { '-' }).take(48).collect();
    Ok(if name == "any" || name.is_empty() { "node".to_owned() } else { name })
}

/// A number that no other start has: from the clock, the process and the allocator, through a
/// hasher that the standard library seeds at random.
fn fresh_seed(name: &str) -> u64 {
    use std::hash::{BuildHasher, Hash, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    name.hash(&mut hasher);
    std::process::id().hash(&mut hasher);
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()).hash(&mut hasher);
    hasher.finish()
}

async fn connect(broker: &Broker, id: &str) -> Result<Links, Error> {
    let connect = match broker {
        Broker::Memory(broker) => {
            let own: Arc<dyn Transport> = Arc::new(broker.transport(&format!("{id}/own")));
            return Ok(Links { lease: Arc::new(broker.transport(&format!("{id}/lease"))), own });
        }
        Broker::Environment => Connect::from_env(|name| std::env::var(name).ok())?,
        Broker::Nats(connect) => (**connect).clone(),
    };
    let own = NatsTransport::connect(connect.clone().name(format!("{id}/own"))).await?;
    let lease = NatsTransport::connect(connect.name(format!("{id}/lease"))).await?;
    Ok(Links { own: Arc::new(own), lease: Arc::new(lease) })
}

/// Reads how many partitions the app was born with, or gives birth to it.
async fn partitions(bucket: &dyn Bucket, builder: &NodeBuilder) -> Result<u16, Error> {
    let key = RecordKey::Meta.to_string();
    let wanted = Meta { partitions: builder.partitions.unwrap_or(PARTITIONS), wire: WIRE };
    let found = match bucket.get(&key).await?.and_then(|record| record.value.ok()) {
        Some(value) => value,
        // Who hosts nothing does not decide how an app is born.
        None if builder.hosts.is_empty() && builder.exposed.is_empty() => born(bucket, &key, &builder.app).await?,
        None => give_birth(bucket, &key, &wanted).await?,
    };
    let Ok(Entry::Meta(meta)) = Entry::parse(RecordKey::Meta, &found) else {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the record `meta` of the app {} cannot be read", builder.app),
        ));
    };
    let disagrees = builder.partitions.is_some_and(|partitions| partitions != meta.partitions);
    if meta.wire != WIRE || disagrees || meta.partitions == 0 {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "the app {} was born with {} partitions and wire version {}; this node has {} and {WIRE}. The number of partitions is fixed at birth: leave it out, or give the app another name",
                builder.app, meta.partitions, meta.wire, wanted.partitions
            ),
        ));
    }
    Ok(meta.partitions)
}

async fn give_birth(bucket: &dyn Bucket, key: &str, wanted: &Meta) -> Result<Bytes, Error> {
    let value = Entry::Meta(*wanted)
        .to_json()
        .map_err(|error| Error::new(ErrorKind::Internal, "the app's record cannot be written").with_source(error))?;
    match bucket.write(key, value.clone().into(), 0, None).await {
        Ok(_) => Ok(value.into()),
        Err(WriteError::Conflict | WriteError::Unknown(_)) => {
            let record = bucket.get(key).await?.and_then(|record| record.value.ok());
            record.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the app's record cannot be read back"))
        }
        Err(WriteError::NotSent(error)) => Err(error),
    }
}

/// Waits for an app to be born by a node that hosts something.
async fn born(bucket: &dyn Bucket, key: &str, app: &str) -> Result<Bytes, Error> {
    let deadline = Instant::now() + SETTLE_WITHIN;
    loop {
        if let Some(value) = bucket.get(key).await?.and_then(|record| record.value.ok()) {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            let why =
                format!("no node of the app {app} has ever run on this broker: start one that hosts something first");
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

type Children = Vec<(&'static str, crate::supervision::Restart, Vec<ChildSpec>)>;

fn host(builder: &mut NodeBuilder, around: &Arc<Surroundings>) -> Result<Children, Error> {
    let mut all = HashMap::new();
    let mut groups = Vec::new();
    for (name, make) in std::mem::take(&mut builder.hosts) {
        let (hosted, children, restart) = make(around)?;
        if !children.is_empty() {
            groups.push((name, restart, children));
        }
        all.insert(name, Arc::new(hosted));
    }
    for (name, verbs) in std::mem::take(&mut builder.exposed) {
        if all.insert(name, Arc::new(Hosted::exposed(name, verbs, around)?)).is_some() {
            return Err(Error::new(ErrorKind::Config, format!("{name} is both hosted and exposed on this node")));
        }
    }
    around.set_hosted(all);
    Ok(groups)
}

fn machine_config(builder: &NodeBuilder, around: &Surroundings, name: &str, incarnation: &str) -> Config {
    let hosted = around.all_hosted();
    let share = |keyed: bool| -> BTreeMap<String, HostInfo> {
        let hosted = hosted.values().filter(|hosted| hosted.keyed == keyed);
        let info = |hosted: &Hosted| HostInfo { version: hosted.version.to_owned(), weight: hosted.weight };
        hosted.map(|hosted| (hosted.name.to_owned(), info(hosted))).collect()
    };
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut config = Config::new(name, incarnation, share(true), around.settings.partitions);
    config.services = share(false);
    config.started_ms = crate::call::wall_ms();
    config.lease_ttl_ms = ms(builder.lease_ttl);
    config.renew_every_ms = ms(builder.renewal());
    config
}

/// Listens to what other nodes say, to `$SRV`, and to calls that must be passed on.
async fn listen(inner: &Arc<Inner>, feed: &Feed, jobs: &mpsc::Sender<Job>) -> Result<(), Error> {
    let around = &inner.around;
    let (subjects, transport) = (&around.subjects, &around.transport);
    let mut said = transport.subscribe(&subjects.node_all(&around.id), None, NODE_CAPACITY).await?;
    {
        let (inner, feed, jobs) = (inner.around.clone(), feed.clone(), jobs.clone());
        spawn_until(&around.runtime, stop_of(&around.node), async move {
            while let Some(message) = said.next().await {
                node_message(&inner, &feed, &jobs, message).await;
            }
        });
    }
    for filter in ["$SRV.*", "$SRV.*.*", "$SRV.*.*.*"] {
        let mut asked = transport.subscribe(&Filter::of(filter), None, 1_024).await?;
        let discovery = Discovery::new(around.clone());
        spawn_until(&around.runtime, stop_of(&around.node), async move {
            while let Some(message) = asked.next().await {
                discovery.answer(&message);
            }
        });
    }
    let mut anybody = transport.subscribe(&subjects.node("any", "info").to_filter(), Some("info"), 1_024).await?;
    {
        let around = around.clone();
        spawn_until(&around.runtime.clone(), stop_of(&around.node), async move {
            while let Some(message) = anybody.next().await {
                info(&around, &message);
            }
        });
    }
    watch_connection(around);
    for hosted in around.all_hosted().values().filter(|hosted| hosted.keyed) {
        if probe::mapping(around, hosted.name).await? == Mapping::Absent {
            pass_calls_on(inner, hosted).await?;
        }
    }
    Ok(())
}

fn stop_of(node: &std::sync::OnceLock<std::sync::Weak<Inner>>) -> CancellationToken {
    node.get().and_then(std::sync::Weak::upgrade).map(|inner| inner.stop.clone()).unwrap_or_default()
}

fn spawn_until(
    runtime: &tokio::runtime::Handle,
    stop: CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) {
    runtime.spawn(async move {
        stop.run_until_cancelled(task).await;
    });
}

async fn node_message(around: &Arc<Surroundings>, feed: &Feed, jobs: &mpsc::Sender<Job>, message: Inbound) {
    let mut tokens = message.subject.split('.').skip(3);
    let (Some(verb), number) = (tokens.next(), tokens.next()) else { return };
    match verb {
        "r" => {
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                around.pending.answered(number, message);
            }
        }
        "in" => serve::frame(around, message),
        "call" => {
            let subject = message.headers.get(SUBJECT).map(str::to_owned);
            if let Some(subject) = subject {
                drop(jobs.send(Job::Call { subject, message }).await);
            }
        }
        "info" => info(around, &message),
        "offer" | "ready" | "idle" => match serde_json::from_slice::<Word>(&message.body) {
            Ok(word) => {
                let answer = message.reply.as_deref().filter(|reply| around.subjects.may_reply_to(reply));
                let answer = answer.and_then(|reply| crate::subject::Subject::parse(reply).ok());
                if let Some(fed) = word.fed(verb, answer) {
                    feed.hear(fed).await;
                }
            }
            Err(error) => tracing::warn!(subject = message.subject, %error, "a word of another node cannot be read"),
        },
        _ => tracing::debug!(subject = message.subject, "an unknown message for this node"),
    }
}

fn info(around: &Surroundings, message: &Inbound) {
    let reply = message.reply.as_deref().filter(|reply| around.subjects.may_reply_to(reply));
    let Some(Ok(reply)) = reply.map(crate::subject::Subject::parse) else { return };
    let answer = Outbound::new(reply, ClusterInfo::of(around).to_json()).with_headers(reply_headers());
    if let Err(error) = around.transport.publish(answer) {
        tracing::debug!(%error, "an answer about this node was not sent");
    }
}

/// Answers to calls that were on their way are lost with the connection: whoever waits is told.
fn watch_connection(around: &Arc<Surroundings>) {
    let mut status = around.transport.status();
    let watched = around.clone();
    spawn_until(&around.runtime, stop_of(&around.node), async move {
        while status.changed().await.is_ok() {
            if *status.borrow_and_update() == Status::Disconnected {
                tracing::warn!(node = watched.id, "the connection to the broker broke");
                watched.pending.connection_lost();
            }
        }
    });
}

/// Where the broker has no mapping: every host of an actor takes calls to it, in a queue group, and
/// passes them on to their owner.
async fn pass_calls_on(inner: &Arc<Inner>, hosted: &Arc<Hosted>) -> Result<(), Error> {
    let around = &inner.around;
    let filter = around.subjects.calls(hosted.name);
    let mut calls = around.transport.subscribe(&filter, Some("forward"), CALL_CAPACITY).await?;
    let (around, hosted, leave) = (around.clone(), hosted.clone(), inner.leave_services.clone());
    inner.services.spawn_on(
        async move {
            let flush = around.subjects.call_token(hosted.name, FLUSH_VERB, FLUSH_VERB);
            let mut leaving = false;
            loop {
                tokio::select! {
                    message = calls.next() => {
                        let Some(message) = message else { return };
                        let subject = message.subject.clone();
                        if crate::subject::Call::keyed(&subject).is_some_and(|call| call.verb == crate::subject::PROBE_VERB) {
                            continue;
                        }
                        pass_or_serve(&around, &hosted, &subject, message);
                    }
                    () = leave.cancelled(), if !leaving => {
                        leaving = true;
                        calls.leave(flush.clone()).await;
                    }
                }
            }
        },
        &inner.around.runtime,
    );
    Ok(())
}

fn pass_or_serve(around: &Arc<Surroundings>, hosted: &Arc<Hosted>, subject: &str, message: Inbound) {
    let key = crate::subject::Call::keyed(subject).map(|asked| crate::key::Key::from_token(asked.token));
    match key {
        Some(Ok(key)) if hosted.gate.check(around.partition_of(&key), &key).is_ok() => {
            serve::outside(around, hosted, subject, message)
        }
        Some(Ok(_)) => serve::pass_on(around, hosted, subject, message),
        Some(Err(error)) => serve::refuse(around, &message, error),
        None => {}
    }
}

/// Listens to calls of this node's services: as many queue subscriptions as the pool has
/// instances, so that the broker's lot falls by weight.
async fn listen_for_services(inner: &Arc<Inner>) -> Result<(), Error> {
    let around = &inner.around;
    for hosted in around.all_hosted().values().filter(|hosted| !hosted.keyed) {
        for _ in 0..hosted.pool {
            let filter = around.subjects.services(hosted.name);
            let calls = around.transport.subscribe(&filter, Some(hosted.name), CALL_CAPACITY).await?;
            let task = serve_service(around.clone(), hosted.clone(), calls, inner.leave_services.clone());
            inner.services.spawn_on(task, &around.runtime);
        }
    }
    Ok(())
}

async fn serve_service(
    around: Arc<Surroundings>,
    hosted: Arc<Hosted>,
    mut calls: Subscription,
    leave: CancellationToken,
) {
    let flush = around.subjects.service(hosted.name, FLUSH_VERB);
    let mut leaving = false;
    loop {
        tokio::select! {
            message = calls.next() => {
                let Some(message) = message else { return };
                let subject = message.subject.clone();
                serve::outside(&around, &hosted, &subject, message);
            }
            () = leave.cancelled(), if !leaving => {
                leaving = true;
                calls.leave(flush.clone()).await;
            }
        }
    }
}

fn spawn_driver(inner: &Arc<Inner>, driver: Driver, lease: Arc<dyn Transport>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Error::new(ErrorKind::Internal, "the lease's runtime cannot be made").with_source(error))?;
    let run = move || runtime.block_on(driver::run_and_close(driver, lease));
    let thread = std::thread::Builder::new()
        .name("gr-lease".to_owned())
        .spawn(run)
        .map_err(|error| Error::new(ErrorKind::Internal, "the lease's thread cannot be started").with_source(error))?;
    inner.threads.lock().push(thread);
    Ok(())
}

/// Waits until the node knows the others and serves its share, or has reason to stop.
async fn settle(inner: &Arc<Inner>) -> Result<(), Error> {
    let around = &inner.around;
    let deadline = Instant::now() + SETTLE_WITHIN;
    let patience = Instant::now() + HANDED_OVER_WITHIN;
    loop {
        let mut versions = around.cluster.versions();
        if let Some(Over::Retired(reason)) = *inner.over.borrow() {
            return Err(Error::new(ErrorKind::Config, format!("this node may not join: {reason:?}")));
        }
        if around.cluster.is_current() && serves_its_share(around, Instant::now() < patience) {
            return Ok(());
        }
        let nap = Instant::now() + Duration::from_millis(50);
        around.until(nap.min(deadline), versions.changed()).await;
        if Instant::now() >= deadline {
            if around.cluster.is_current() {
                tracing::warn!(node = around.id, "some partitions that fall to this node are not served yet");
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the ownership records could not be read within 10 s; does the broker have JetStream?",
            ));
        }
    }
}

/// Whether this node serves every partition that falls to it. `patient`: also those that another
/// node still holds, and hands over.
fn serves_its_share(around: &Surroundings, patient: bool) -> bool {
    let view = around.cluster.view();
    let hosted = around.all_hosted();
    let mut keyed = hosted.values().filter(|hosted| hosted.keyed);
    let mine = |name, number| view.desired(name, number).is_none_or(|id| id.as_str() == around.id);
    keyed.all(|hosted| {
        (0..around.settings.partitions).all(|number| match around.cluster.locate(hosted.name, number) {
            Located::Here => hosted.gate.epoch(number) != 0,
            Located::Node { .. } => !(patient && mine(hosted.name, number)),
            Located::Vacant => !mine(hosted.name, number),
            Located::NoHosts => false,
        })
    })
}

async fn start_tasks(builder: &mut NodeBuilder, node: &Node) -> Result<(), Error> {
    for group in std::mem::take(&mut builder.groups) {
        let children = group.tasks.into_iter().map(|(name, make)| {
            let inner = Arc::downgrade(&node.inner);
            ChildSpec::task(name, move || {
                let (make, inner) = (make.clone(), inner.clone());
                async move {
                    // A node that has gone stops its tasks; there is nothing left to run them for.
                    let Some(inner) = inner.upgrade() else { return Ok(()) };
                    make(Node { inner }).await
                }
            })
            .with_grace(TASK_GRACE)
        });
        node.inner.tree.group(&group.name, group.restart, children.collect()).await?;
    }
    Ok(())
}

/// See [`Node::drain`].
pub(super) async fn drain(inner: &Arc<Inner>, within: Duration) -> Result<(), Error> {
    let around = &inner.around;
    let deadline = Instant::now() + within;
    around.enter_life(Life::Draining);
    inner.leave_services.cancel();
    inner.services.close();
    begin_drain(inner).await;
    let mut over = inner.over.clone();
    let released = around.until(deadline, over.wait_for(Option::is_some)).await.is_some();
    let served = around.until(deadline, inner.services.wait()).await.is_some();
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    inner.tree.stop(left).await;
    around.enter_life(Life::Stopped);
    inner.stop.cancel();
    drop(around.transport.flush().await);
    around.transport.close().await;
    inner.cut();
    let threads = std::mem::take(&mut *inner.threads.lock());
    let joined = around.runtime.spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    if released {
        drop(joined.await);
    }
    if released && served {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Interrupted,
        format!("turns still ran after {within:?}; the node has stopped all the same"),
    ))
}
