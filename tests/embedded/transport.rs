//! The suite that every transport passes, against a real server that is stopped and started.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use greenroom::subject::Subject;
use greenroom::transport::suite::{CASES, Harness, SLOW_CASES, random};
use greenroom::transport::{Connect, Headers, MemoryBroker, NatsTransport, Start, StreamConfig, Transport};

use super::ground::bounded;
use crate::harness::{Profile, Server};

struct Nats(Server);

impl Harness for Nats {
    fn connect(&mut self, name: &str) -> BoxFuture<'_, Arc<dyn Transport>> {
        let settings = Connect::try_from(self.0.url()).expect("an address").name(name);
        async move { Arc::new(NatsTransport::connect(settings).await.expect("a connection")) as Arc<dyn Transport> }
            .boxed()
    }

    fn stop_broker(&mut self) -> BoxFuture<'_, ()> {
        self.0.stop().boxed()
    }

    fn start_broker(&mut self) -> BoxFuture<'_, ()> {
        self.0.restart().boxed()
    }
}

/// Those that wait for the broker's times more than they work: they do it together.
const WAITING: &[&str] = &[
    "markers_go_after_a_while",
    "an_update_sets_the_time_to_live_anew",
    "expiry_is_seen_and_recreation_expires_too",
    "watch_survives_the_broker",
    "records_of_a_stream_expire",
    "schedules_publish_when_it_is_time",
    "a_work_queue_keeps_its_schedules_and_forgets_what_they_published",
    "deliveries_come_again_until_acknowledged",
    "a_delivery_comes_so_often_at_most",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_that_wait() {
    let all = WAITING.iter().map(|case| tokio::spawn(run(case)));
    for (case, ended) in WAITING.iter().zip(futures_util::future::join_all(all).await) {
        assert!(ended.is_ok(), "{case} has failed");
    }
}

/// Both brokers answer alike, whatever they are asked. A failure names its seed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_have_equal_answers() {
    const SEEDS: u64 = 5;
    const OPERATIONS: usize = 2_400;
    let mut harness = Nats(Server::start(Profile::Plain).await);
    let nats = harness.connect("random").await;
    let memory = MemoryBroker::new().transport("random");
    for seed in 1..=SEEDS {
        bounded(random(&memory, &*nats, seed, OPERATIONS)).await;
    }
}

/// The client library throws away what it has no room for; the follower notices and reads it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_library_drops_is_followed_all_the_same() {
    const RECORDS: u64 = 1_500;
    let server = Server::start(Profile::Plain).await;
    let settings = Connect::try_from(server.url()).expect("an address").backlog(256);
    let transport = NatsTransport::connect(settings).await.expect("a connection");
    let subject = Subject::parse("gaps.a").expect("a subject");
    let stream = transport.stream("gaps", StreamConfig::new([subject.to_filter()])).await.expect("a stream");
    for number in 1..=RECORDS {
        let appended = stream.append(&subject, None, Headers::new(), number.to_string().into()).await;
        assert_eq!(appended.expect("appended"), number);
    }
    let mut follow = stream.follow(Vec::new(), Start::At(1)).await.expect("a follower");
    // Nobody reads for a while, and far more is delivered than is kept anywhere.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for number in 1..=RECORDS {
        let next = tokio::time::timeout(Duration::from_secs(15), follow.next()).await;
        let record = next.expect("it does not stop").expect("a record");
        assert_eq!(record.sequence, number);
        assert_eq!(record.body, number.to_string());
    }
}

async fn run(name: &str) {
    let mut cases = CASES.iter().chain(SLOW_CASES);
    let (_, case) = cases.find(|(known, _)| *known == name).expect("the suite has this case");
    let mut harness = Nats(Server::start(Profile::Plain).await);
    bounded(case(&mut harness)).await;
}

macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            run(stringify!($case)).await;
        })+

        #[test]
        fn all_cases_of_the_suite_run_here() {
            let here = [$(stringify!($case)),+];
            for (name, _) in CASES.iter().chain(SLOW_CASES) {
                let known = here.contains(name) || WAITING.contains(name);
                assert!(known, "{name} is missing in the lists of this module");
            }
        }
    };
}

cases!(
    messages_arrive_in_order,
    wildcards_match,
    queue_groups_share,
    nobody_there_is_told_at_once,
    headers_round_trip,
    payload_limit,
    flush_messages_are_swallowed,
    close_ends_everything,
    leaving_a_group_loses_nothing,
    leaving_when_idle_or_alone,
    leaving_gives_what_was_waiting,
    compare_and_set,
    delete_then_create,
    bad_keys_and_times_are_refused,
    watch_gives_all_then_current_then_changes,
    watch_of_many_records_is_complete,
    watch_of_some_records_shows_no_others,
    races_have_one_winner,
    appends_compare_and_set,
    reads_find_what_is_next,
    a_run_is_read_to_its_end,
    what_no_stream_takes_is_refused,
    races_to_append_have_one_winner,
    a_stream_changes_subjects,
    following_gives_all_then_what_is_new,
    a_slow_follower_misses_nothing,
    headers_can_be_followed_alone,
    a_record_that_is_sent_again_is_stored_once,
    records_are_removed_where_that_is_allowed,
    deliveries_are_acknowledged_once,
    consumers_bound_what_is_given_out,
    a_work_queue_forgets_what_is_done,
    holders_of_a_consumer_share,
    the_next_consumer_of_a_work_queue_gets_what_the_last_left,
    broker_away_fails_fast_and_comes_back,
    streams_survive_the_broker,
    leaving_works_after_a_reconnect,
);
