//! Starting a node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::builder::{Broker, NodeBuilder};
use super::cluster::Located;
use super::driver::{self, Driver, Feed, Over};
use super::duty::Duties;
use super::hosted::Hosted;
use super::keeper::Keeper;
use super::surroundings::{Settings, Surroundings};
use super::{Inner, Node, always, birth, idle, listen, notice, silence};
use crate::error::{Error, ErrorKind};
use crate::ownership::{Candidates, Config, HostInfo, Machine, NodeId};
use crate::reminder;
use crate::subject::{Name, Subjects};
use crate::supervision::{ChildSpec, Group, Tree};
use crate::tell::{self, Following, Lanes, Relay};
use crate::transport::{Bucket, Connect, NatsTransport, SERVER_FLOOR, Transport};

/// How long a background task may take to notice that it is stopped.
pub(super) const TASK_GRACE: Duration = Duration::from_secs(1);
/// How long a start waits for its share of the partitions.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// How long of that it waits for partitions that others hold: their holder may be dead, and then
/// only its lease ends that.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(3);

/// What headers, and the head of a frame, may take beside a payload.
const BESIDE_PAYLOAD: usize = 64 * 1024;

/// The node's connections: one whose loss is the node's loss, one for leases and claims.
struct Links {
    own: Arc<dyn Transport>,
    lease: Arc<dyn Transport>,
}

pub(super) async fn start(mut builder: NodeBuilder) -> Result<Node, Error> {
    let name = node_name(builder.name.as_deref())?;
    let seed = builder.seed(fresh_seed(&name));
    let incarnation = format!("{:08x}", (seed ^ (seed >> 32)) as u32);
    let id = format!("{name}-{incarnation}");
    let subjects = Subjects::new(Name::new(&builder.app)?);
    let at = settings_of(&builder.broker)?;
    let links = connect(&builder, at.clone(), &id).await?;
    let bucket: Arc<dyn Bucket> = Arc::from(links.lease.bucket(&subjects.ownership_bucket()).await?);
    let meta = birth::of(&*bucket, &builder).await?;
    let settings = Settings {
        budget: builder.budget,
        mailbox: builder.mailbox,
        in_flight: builder.in_flight,
        payload: builder.payload.min(room_for_payload(links.own.max_payload())),
        activations: builder.activations,
        passivate_after: builder.passivate_after,
        remembers: builder.remembers,
        partitions: meta.partitions,
    };
    let runtime = builder.executor()?;
    let mut around = Surroundings::new(id, seed, settings, subjects, runtime, links.own.clone())?;
    around.duties = Duties::new(vec![Box::new(Relay), Box::new(Following), Box::new(Lanes), Box::new(reminder::Lane)]);
    let around = Arc::new(around);
    let tree = Tree::start(around.runtime.handle(), &around.id).await?;
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
        leave_nodes: CancellationToken::new(),
        nodes: TaskTracker::new(),
        threads: parking_lot::Mutex::new(Vec::new()),
    });
    around.node.get_or_init(|| Arc::downgrade(&inner));
    let node = Node::kept(&inner);
    for (name, restart, children) in children {
        let group = inner.tree.group(name, restart, children).await?;
        group.started().await?;
        close_with(&around, name, group);
    }
    listen::listen(&inner, &feed, &jobs).await?;
    let (stop, keeper) = (inner.stop.clone(), Keeper::new(around.clone(), feed, inner.stop.clone()).run(keeper_jobs));
    around.runtime.spawn(async move { stop.run_until_cancelled(keeper).await });
    let mut config = machine_config(&builder, &around, &name, &incarnation);
    config.first_epoch = meta.born;
    if let Some(at) = at.filter(|_| !config.is_client()) {
        silence::warn_of(&inner, at);
    }
    let notices = if config.is_client() { None } else { listen::notices(&around.subjects, &*links.lease).await };
    let driver = Driver {
        around: around.clone(),
        machine: Machine::new(config),
        bucket,
        own: links.own.status(),
        lease: links.lease.status(),
        notices,
        inputs,
        jobs,
        over: over_sender,
        gone: inner.stop.clone(),
        lease_ttl: builder.lease_ttl,
    };
    spawn_driver(&inner, driver, links.lease)?;
    end_if_retired(&inner);
    idle::passivate(&inner);
    always::keep(&inner);
    settle(&inner).await?;
    listen::listen_for_services(&inner).await?;
    for hosted in around.all_hosted().values().filter(|hosted| hosted.keyed) {
        let (stop, bell) = (inner.stop.clone(), tell::listen(around.clone(), hosted.name));
        around.runtime.spawn(async move { stop.run_until_cancelled(bell).await });
    }
    start_tasks(&mut builder, &node).await?;
    Ok(node)
}

/// Ends a service on this node when its instances will not come back.
fn close_with(around: &Surroundings, service: &str, group: Group) {
    if let Some(hosted) = around.hosted(service) {
        around.runtime.spawn(async move {
            group.over().await;
            hosted.close();
        });
    }
}

/// What the broker takes, less what stands around a payload; at least half of it.
fn room_for_payload(broker: usize) -> usize {
    broker.saturating_sub(BESIDE_PAYLOAD).max(broker / 2)
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

/// How to reach the broker, if it is not in this process.
fn settings_of(broker: &Broker) -> Result<Option<Connect>, Error> {
    match broker {
        Broker::Memory(_) => Ok(None),
        Broker::Environment => Connect::from_env(|name| std::env::var(name).ok()).map(Some),
        Broker::Nats(connect) => Ok(Some((**connect).clone())),
    }
}

async fn connect(builder: &NodeBuilder, at: Option<Connect>, id: &str) -> Result<Links, Error> {
    #[cfg(test)]
    if let Some([own, lease]) = builder.links(&format!("{id}{}", notice::OWN), &format!("{id}/lease")) {
        return Ok(Links { own, lease });
    }
    let connect = match (&builder.broker, at) {
        (Broker::Memory(broker), _) => {
            let own: Arc<dyn Transport> = Arc::new(broker.transport(&format!("{id}{}", notice::OWN)));
            return Ok(Links { lease: Arc::new(broker.transport(&format!("{id}/lease"))), own });
        }
        (_, Some(connect)) => connect,
        (_, None) => return Err(Error::new(ErrorKind::Internal, "nothing says how to reach the broker")),
    };
    let own = NatsTransport::connect(connect.clone().name(format!("{id}{}", notice::OWN))).await?;
    warn_of_an_old_server(&own);
    let lease = NatsTransport::connect(connect.name(format!("{id}/lease"))).await?;
    Ok(Links { own: Arc::new(own), lease: Arc::new(lease) })
}

fn warn_of_an_old_server(transport: &NatsTransport) {
    if let Ok(server) = transport.server()
        && server.is_below_floor()
    {
        let (major, minor, patch) = SERVER_FLOOR;
        tracing::warn!(
            version = server.version,
            "the server is older than {major}.{minor}.{patch}, the oldest that is tested: whether it keeps what it has \
             acknowledged is not known"
        );
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
    for (name, verbs, rooms) in std::mem::take(&mut builder.exposed) {
        if all.insert(name, Arc::new(Hosted::exposed(name, verbs, rooms, around)?)).is_some() {
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
        let info = |hosted: &Hosted| HostInfo {
            version: hosted.version.to_owned(),
            weight: hosted.weight,
            durable: hosted.durable,
            always_on: hosted.always_on.iter().map(|key| key.as_str().to_owned()).collect(),
        };
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

fn spawn_driver(inner: &Arc<Inner>, driver: Driver, lease: Arc<dyn Transport>) -> Result<(), Error> {
    #[cfg(test)]
    if inner.around.runtime.is_simulated() {
        // Everything on one thread, or a seed would not replay.
        inner.around.runtime.spawn(driver::run_and_close(driver, lease));
        return Ok(());
    }
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

/// A node that was taken for dead must not be found where its actors lived, whatever its program does.
fn end_if_retired(inner: &Arc<Inner>) {
    let (mut over, weak) = (inner.over.clone(), Arc::downgrade(inner));
    inner.around.runtime.spawn(async move {
        let retired = matches!(over.wait_for(Option::is_some).await.as_deref(), Ok(Some(Over::Retired(_))));
        if let Some(inner) = weak.upgrade().filter(|_| retired) {
            inner.end().await;
        }
    });
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
    let me = NodeId::new(around.id.as_str());
    keyed.all(|hosted| {
        let desired = Candidates::desired(&view, hosted.name, &me);
        let mine = |number| desired.prefer_me(number);
        (0..around.settings.partitions).all(|number| match around.cluster.locate(hosted.name, number) {
            Located::Here { .. } => hosted.gate.epoch(number) != 0,
            Located::Node { .. } => !(patient && mine(number)),
            Located::Vacant => !mine(number),
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
                    make(Node::of(inner)).await
                }
            })
            .with_grace(TASK_GRACE)
        });
        node.inner.tree.group(&group.name, group.restart, children.collect()).await?;
    }
    Ok(())
}
