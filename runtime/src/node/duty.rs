//! Duties: work that exactly one node does for an actor type, or for a share of it.
//!
//! A duty stands at a partition of an actor type, and is done by the node that serves it: it begins when the claim is
//! served, is told to stop before the claim is given away, and knows the claim's epoch. What is wanted at which
//! partition is up to the duty; a share of the keys is called a *lane*, and lane n is worked at partition n. Two nodes
//! may believe for a moment that a duty is theirs (the one that was, frozen, may wake): what a duty writes must bear
//! that, by its epoch or by compare-and-set.
//!
//! One task for each duty at each post, none for an actor. A duty that fails or panics begins again after a pause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hosted::Hosted;
use super::surroundings::Surroundings;
use crate::engine::turn_of;
use crate::error::Error;
use crate::pauses::Pauses;

/// The most lanes of an actor type.
const LANES_MAX: u16 = 64;
/// How long a duty that was told to stop may take to put its things in order.
const GRACE: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A duty that was done for so long has not failed in a row.
const WENT_WELL: Duration = Duration::from_secs(60);

/// How many lanes an app with so many partitions has.
pub(crate) fn lanes(partitions: u16) -> u16 {
    partitions.clamp(1, LANES_MAX)
}

/// A kind of work.
pub(crate) trait Duty: Send + Sync + 'static {
    /// What it is called, for people.
    fn name(&self) -> &'static str;

    /// Whether it is to be done for this actor type at this partition. Asked under a lock, so it must not wait; when
    /// the answer changes, [`Duties::look`] is to be called.
    fn is_wanted(&self, around: &Surroundings, hosted: &Hosted, partition: u16) -> bool;

    /// Does it until [`Post::stop`] is cancelled, and then puts its things in order: it is dropped 5 s after that.
    /// One that returns Ok has nothing more to do under this claim; one that fails begins again after a pause.
    fn work(&self, post: Post) -> BoxFuture<'static, Result<(), Error>>;
}

/// Where a duty is done: a partition that this node serves.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) around: Arc<Surroundings>,
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) partition: u16,
    /// Of the claim.
    pub(crate) epoch: u64,
    /// Cancelled when the duty is another's from now on, before that one can know.
    pub(crate) stop: CancellationToken,
}

impl Post {
    /// Whether nothing is known of the claim having gone.
    pub(crate) fn is_current(&self) -> bool {
        !self.stop.is_cancelled() && self.hosted.gate.epoch(self.partition) == self.epoch
    }

    /// Whether this node is known to serve the claim still: after a pause of the process it may not be.
    pub(crate) fn holds(&self) -> bool {
        self.is_current() && self.hosted.gate.is_proved()
    }
}

/// The duties of a node.
#[derive(Default)]
pub(crate) struct Duties {
    kinds: Vec<Box<dyn Duty>>,
    state: Mutex<State>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    done: BTreeMap<Place, Done>,
    /// Those that were told to stop and have not ended yet.
    leaving: BTreeMap<Place, JoinHandle<()>>,
    /// While the node cannot prove its lease.
    suspended: bool,
    over: bool,
}

/// The number of the duty, the actor type, the partition.
type Place = (usize, &'static str, u16);

/// A duty that is being done.
struct Done {
    epoch: u64,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Duties {
    pub(crate) fn new(kinds: Vec<Box<dyn Duty>>) -> Self {
        Self { kinds, ..Self::default() }
    }

    /// Sees that what is wanted for an actor type is done, and nothing else. To be called after each change of what
    /// is served or wanted; `partition`: only there.
    pub(crate) fn look(&self, around: &Arc<Surroundings>, actor: &str, partition: Option<u16>) {
        if self.kinds.is_empty() {
            return;
        }
        let Some(hosted) = around.hosted(actor).filter(|hosted| hosted.keyed) else { return };
        let partitions = partition.map_or(0..around.settings.partitions, |one| one..one + 1);
        let mut state = self.state.lock();
        for partition in partitions {
            for number in 0..self.kinds.len() {
                self.look_at(&mut state, around, &hosted, (number, hosted.name, partition));
            }
        }
    }

    /// The node cannot prove its lease: others may do its duties. Or it can again.
    pub(crate) fn suspend(&self, around: &Arc<Surroundings>, suspended: bool) {
        let was = std::mem::replace(&mut self.state.lock().suspended, suspended);
        if was != suspended {
            self.look_everywhere(around);
        }
    }

    /// Ends all of them, for good.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.over = true;
        std::mem::take(&mut state.done).into_values().for_each(|done| done.stop.cancel());
        state.leaving.clear();
        self.tasks.close();
    }

    /// Waits until all have ended.
    pub(crate) async fn ended(&self) {
        self.tasks.wait().await;
    }

    fn look_everywhere(&self, around: &Arc<Surroundings>) {
        for hosted in around.all_hosted().values().filter(|hosted| hosted.keyed) {
            self.look(around, hosted.name, None);
        }
    }

    fn look_at(&self, state: &mut State, around: &Arc<Surroundings>, hosted: &Arc<Hosted>, place: Place) {
        let (number, _, partition) = place;
        let epoch = hosted.gate.epoch(partition);
        let serves = epoch != 0 && !state.suspended && !state.over;
        let wanted = serves && self.kinds[number].is_wanted(around, hosted, partition);
        match state.done.get(&place) {
            Some(done) if wanted && done.epoch == epoch => return,
            None if !wanted => return,
            _ => {}
        }
        if let Some(done) = state.done.remove(&place) {
            done.stop.cancel();
            state.leaving.insert(place, done.task);
        }
        if wanted {
            let before = state.leaving.remove(&place);
            let stop = CancellationToken::new();
            let post = Post { around: around.clone(), hosted: hosted.clone(), partition, epoch, stop: stop.clone() };
            let task = around.runtime.spawn(self.tasks.track_future(keep_doing(number, post, before)));
            state.done.insert(place, Done { epoch, stop, task });
        }
    }
}

/// Does a duty, again and again if it fails, until it is told to stop or has nothing more to do.
async fn keep_doing(number: usize, post: Post, before: Option<JoinHandle<()>>) {
    if let Some(before) = before {
        drop(before.await);
    }
    let mut pauses = Pauses::new(PAUSE_FIRST, PAUSE_MAX);
    while !post.stop.is_cancelled() {
        let Some(duty) = post.around.duties.kinds.get(number) else { return };
        let (name, actor, partition) = (duty.name(), post.hosted.name, post.partition);
        let began = Instant::now();
        tracing::debug!(node = post.around.id, duty = name, actor, partition, epoch = post.epoch, "begins");
        let work = duty.work(post.clone());
        let over = async {
            post.stop.cancelled().await;
            // A node that is cut off ends as it is.
            if post.around.check_running().is_ok() {
                tokio::time::sleep(GRACE).await;
            }
        };
        let why = tokio::select! {
            biased;
            done = turn_of(work) => match done {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(cause) => format!("it panicked: {cause}"),
            },
            () = over => {
                tracing::debug!(duty = name, actor, partition, "cut off");
                return;
            }
        };
        if began.elapsed() > WENT_WELL {
            pauses.begin_anew();
        }
        let pause = pauses.next();
        if !post.stop.is_cancelled() {
            tracing::warn!(duty = name, actor, partition, why, "failed; it begins again in {pause:?}");
        }
        post.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

#[cfg(test)]
mod tests {
    use crate::executor::Executor;
    use tokio::sync::mpsc;

    use super::*;
    use crate::contract::{Contract, Keyed, Message, Never, NoEvent, mode};
    use crate::error::ErrorKind;
    use crate::node::surroundings::Settings;
    use crate::node::{HostOptions, Hosted};
    use crate::subject::{Name, Subjects};
    use crate::transport::MemoryBroker;
    use crate::{Actor, Context, Handle, Verbs};

    struct Clock;

    #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    struct Tick;

    impl Contract for Clock {
        const NAME: &'static str = "clock";
        const VERSION: &'static str = "1.0.0";
        type Kind = Keyed;
        type Messages = (Tick,);
        type Event = NoEvent;
    }

    impl Message for Tick {
        const VERB: &'static str = "tick";
        type Contract = Clock;
        type Mode = mode::Tell;
        type Reply = ();
        type Refusal = Never;
    }

    struct ClockActor;

    impl Actor for ClockActor {
        type Contract = Clock;
        const VERSION: &'static str = "1.0.0";

        async fn activate(_: &mut Context<'_, Self>) -> Result<Self, Error> {
            Ok(Self)
        }

        fn verbs(verbs: &mut Verbs<Self>) {
            verbs.tell::<Tick>();
        }
    }

    impl Handle<Tick> for ClockActor {
        async fn handle(&mut self, _: Tick, _: &mut Context<'_, Self>) -> Result<(), Never> {
            Ok(())
        }
    }

    /// Says when it begins and ends; the first time it fails, the second it panics.
    struct Loud {
        said: mpsc::Sender<String>,
        times: std::sync::atomic::AtomicU32,
    }

    impl Duty for Loud {
        fn name(&self) -> &'static str {
            "loud"
        }

        fn is_wanted(&self, _: &Surroundings, _: &Hosted, partition: u16) -> bool {
            partition < 2
        }

        fn work(&self, post: Post) -> BoxFuture<'static, Result<(), Error>> {
            let (said, time) = (self.said.clone(), self.times.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
            Box::pin(async move {
                said.send(format!("{} begins at {}", post.partition, post.epoch)).await.ok();
                match time {
                    0 => return Err(Error::new(ErrorKind::Unavailable, "the first time it fails")),
                    1 => panic!("the second time it falls"),
                    _ => post.stop.cancelled().await,
                }
                said.send(format!("{} ends, holds: {}", post.partition, post.holds())).await.ok();
                Ok(())
            })
        }
    }

    fn settings() -> Settings {
        Settings {
            budget: Duration::from_secs(5),
            mailbox: 16,
            in_flight: 16,
            payload: 1_024,
            activations: 16,
            passivate_after: Duration::from_secs(600),
            remembers: 8,
            partitions: 4,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_duty_is_done_where_its_partition_is_served_and_begins_again_when_it_fails() {
        let (said, mut heard) = mpsc::channel(64);
        let subjects = Subjects::new(Name::new("demo").expect("a name"));
        let transport = Arc::new(MemoryBroker::new().transport("duty"));
        let mut around = Surroundings::new(
            "n-1".into(),
            1,
            settings(),
            subjects,
            Executor::current().expect("a runtime"),
            transport,
        )
        .expect("a key");
        around.duties = Duties::new(vec![Box::new(Loud { said, times: 0.into() })]);
        let around = Arc::new(around);
        let (hosted, _) = Hosted::of::<ClockActor>(&around, &HostOptions::new()).expect("it can be hosted");
        let hosted = Arc::new(hosted);
        around.set_hosted([("clock", hosted.clone())].into());
        around.proof.extend(around.proof.reading(), 3_600_000);

        // Nothing is served yet, and partition 3 is not wanted.
        around.duties.look(&around, "clock", None);
        hosted.gate.open(3, 7, true);
        around.duties.look(&around, "clock", Some(3));
        hosted.gate.open(1, 5, true);
        around.duties.look(&around, "clock", Some(1));
        for _ in 0..3 {
            assert_eq!(heard.recv().await.as_deref(), Some("1 begins at 5"), "it failed, it fell, it goes on");
        }
        // Given away: told to stop before anybody else can know. Another look changes nothing.
        hosted.gate.close(1);
        around.duties.look(&around, "clock", Some(1));
        around.duties.look(&around, "clock", None);
        assert_eq!(heard.recv().await.as_deref(), Some("1 ends, holds: false"));
        hosted.gate.open(1, 6, true);
        around.duties.look(&around, "clock", None);
        assert_eq!(heard.recv().await.as_deref(), Some("1 begins at 6"));
        // A node that cannot prove its lease does none, and begins again when it can.
        around.duties.suspend(&around, true);
        assert_eq!(heard.recv().await.as_deref(), Some("1 ends, holds: false"));
        around.duties.suspend(&around, false);
        assert_eq!(heard.recv().await.as_deref(), Some("1 begins at 6"));
        around.duties.end();
        assert_eq!(heard.recv().await.as_deref(), Some("1 ends, holds: false"));
        around.duties.ended().await;
        around.duties.look(&around, "clock", None);
        assert!(heard.try_recv().is_err(), "it is over");
    }
}
