//! What every [`Transport`] must do, as cases that run against any of them.
//!
//! The memory broker runs them as unit tests; the integration tests run them against a real
//! server. Each case uses subjects and buckets of its own name, so they share a broker, but a
//! case that stops the broker must run alone.

mod faults;
mod keeping;
mod leaving;
mod messages;
mod random;
mod records;
mod streams;
mod work;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use self::random::random;
use super::{Change, Entry, Inbound, Outbound, Status, Subscription, Transport, Watch};
use crate::subject::{Filter, Subject};

/// A broker to try the cases on.
pub trait Harness: Send {
    /// A new connection of this name.
    fn connect(&mut self, name: &str) -> BoxFuture<'_, Arc<dyn Transport>>;

    /// Stops the broker, so that every connection is lost. Records must survive.
    fn stop_broker(&mut self) -> BoxFuture<'_, ()>;

    /// Starts it again, at the same address.
    fn start_broker(&mut self) -> BoxFuture<'_, ()>;
}

/// Runs on one harness, and panics saying what went wrong.
pub type Case = for<'a> fn(&'a mut dyn Harness) -> BoxFuture<'a, ()>;

/// The cases that take at most a few seconds each, by name.
pub const CASES: &[(&str, Case)] = &[
    ("messages_arrive_in_order", |h| Box::pin(messages::in_order(h))),
    ("wildcards_match", |h| Box::pin(messages::wildcards(h))),
    ("queue_groups_share", |h| Box::pin(messages::queue_groups(h))),
    ("nobody_there_is_told_at_once", |h| Box::pin(messages::no_responders(h))),
    ("headers_round_trip", |h| Box::pin(messages::headers(h))),
    ("payload_limit", |h| Box::pin(messages::payload_limit(h))),
    ("flush_messages_are_swallowed", |h| Box::pin(messages::flush_is_swallowed(h))),
    ("close_ends_everything", |h| Box::pin(messages::close(h))),
    ("leaving_a_group_loses_nothing", |h| Box::pin(leaving::under_load(h))),
    ("leaving_when_idle_or_alone", |h| Box::pin(leaving::idle(h))),
    ("leaving_gives_what_was_waiting", |h| Box::pin(leaving::backlog(h))),
    ("compare_and_set", |h| Box::pin(records::compare_and_set(h))),
    ("delete_then_create", |h| Box::pin(records::delete_then_create(h))),
    ("expiry_is_seen_and_recreation_expires_too", |h| Box::pin(records::expiry(h))),
    ("an_update_sets_the_time_to_live_anew", |h| Box::pin(records::renewal(h))),
    ("bad_keys_and_times_are_refused", |h| Box::pin(records::bad_input(h))),
    ("watch_gives_all_then_current_then_changes", |h| Box::pin(records::watch(h))),
    ("watch_of_many_records_is_complete", |h| Box::pin(records::watch_many(h))),
    ("watch_of_some_records_shows_no_others", |h| Box::pin(records::watch_some(h))),
    ("races_have_one_winner", |h| Box::pin(records::races(h))),
    ("appends_compare_and_set", |h| Box::pin(streams::compare_and_set(h))),
    ("reads_find_what_is_next", |h| Box::pin(streams::next(h))),
    ("a_run_is_read_to_its_end", |h| Box::pin(streams::run(h))),
    ("what_no_stream_takes_is_refused", |h| Box::pin(streams::bad_input(h))),
    ("races_to_append_have_one_winner", |h| Box::pin(streams::races(h))),
    ("records_of_a_stream_expire", |h| Box::pin(streams::expiry(h))),
    ("a_stream_changes_subjects", |h| Box::pin(streams::transform(h))),
    ("schedules_publish_when_it_is_time", |h| Box::pin(streams::schedules(h))),
    ("a_work_queue_keeps_its_schedules_and_forgets_what_they_published", |h| Box::pin(work::schedules(h))),
    ("following_gives_all_then_what_is_new", |h| Box::pin(streams::follow(h))),
    ("a_slow_follower_misses_nothing", |h| Box::pin(streams::slow_follower(h))),
    ("headers_can_be_followed_alone", |h| Box::pin(keeping::follow_headers(h))),
    ("a_record_that_is_sent_again_is_stored_once", |h| Box::pin(keeping::sent_again(h))),
    ("records_are_removed_where_that_is_allowed", |h| Box::pin(keeping::remove(h))),
    ("deliveries_are_acknowledged_once", |h| Box::pin(work::acknowledge(h))),
    ("deliveries_come_again_until_acknowledged", |h| Box::pin(work::redelivery(h))),
    ("a_delivery_comes_so_often_at_most", |h| Box::pin(work::max_deliver(h))),
    ("consumers_bound_what_is_given_out", |h| Box::pin(work::bounds(h))),
    ("a_work_queue_forgets_what_is_done", |h| Box::pin(work::work_queue(h))),
    ("holders_of_a_consumer_share", |h| Box::pin(work::shared(h))),
    ("the_next_consumer_of_a_work_queue_gets_what_the_last_left", |h| Box::pin(keeping::next_consumer(h))),
    ("broker_away_fails_fast_and_comes_back", |h| Box::pin(faults::broker_away(h))),
    ("watch_survives_the_broker", |h| Box::pin(faults::watch_survives(h))),
    ("streams_survive_the_broker", |h| Box::pin(faults::streams_survive(h))),
    ("leaving_works_after_a_reconnect", |h| Box::pin(faults::leave_after_reconnect(h))),
];

/// Cases that wait for the broker's own times, a quarter of a minute each.
pub const SLOW_CASES: &[(&str, Case)] = &[("markers_go_after_a_while", |h| Box::pin(records::markers_go(h)))];

/// Runs all of [`CASES`], one after the other.
pub async fn run_all(harness: &mut dyn Harness) {
    for (name, case) in CASES {
        tracing::info!(case = name, "transport suite");
        case(harness).await;
    }
}

/// How long anything may take that should happen soon.
const SOON: Duration = Duration::from_secs(10);
/// How long to wait to be fairly sure that something does not happen.
const QUIET: Duration = Duration::from_millis(150);

/// Waits for something that must happen soon.
async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, happens).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("this did not happen within {SOON:?}: {what}"),
    }
}

fn subject(text: &str) -> Subject {
    Subject::parse(text).unwrap_or_else(|error| panic!("the case is wrong: {error}"))
}

fn say(subject_text: &str, body: impl Into<Bytes>) -> Outbound {
    Outbound::new(subject(subject_text), body)
}

async fn listen(transport: &dyn Transport, filter: &str, queue: Option<&str>) -> Subscription {
    match transport.subscribe(&Filter::of(filter), queue, 8_192).await {
        Ok(subscription) => subscription,
        Err(error) => panic!("cannot subscribe to {filter}: {error}"),
    }
}

async fn hear(subscription: &mut Subscription, what: &str) -> Inbound {
    match soon(what, subscription.next()).await {
        Some(message) => message,
        None => panic!("the subscription ended instead of: {what}"),
    }
}

/// Checks that nothing comes for a while.
async fn hear_nothing(subscription: &mut Subscription, why: &str) {
    if let Ok(message) = tokio::time::timeout(QUIET, subscription.next()).await {
        panic!("{why}, but this came: {message:?}");
    }
}

async fn see(watch: &mut Watch, what: &str) -> Change {
    match soon(what, watch.next()).await {
        Some(change) => change,
        None => panic!("the watch ended instead of: {what}"),
    }
}

async fn see_entry(watch: &mut Watch, what: &str) -> Entry {
    match see(watch, what).await {
        Change::Entry(entry) => entry,
        other => panic!("the watch said {other:?} instead of: {what}"),
    }
}

fn text(message: &Inbound) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

async fn wait_for(transport: &dyn Transport, what: &str, wanted: impl FnMut(&Status) -> bool) {
    let mut status = transport.status();
    if soon(what, status.wait_for(wanted)).await.is_err() {
        panic!("the transport is gone instead of: {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::MemoryBroker;

    struct Memory(MemoryBroker);

    impl Harness for Memory {
        fn connect(&mut self, name: &str) -> BoxFuture<'_, Arc<dyn Transport>> {
            let transport = self.0.transport(name);
            Box::pin(async move { Arc::new(transport) as Arc<dyn Transport> })
        }

        fn stop_broker(&mut self) -> BoxFuture<'_, ()> {
            self.0.stop();
            Box::pin(std::future::ready(()))
        }

        fn start_broker(&mut self) -> BoxFuture<'_, ()> {
            self.0.start();
            Box::pin(std::future::ready(()))
        }
    }

    async fn run(name: &str) {
        let cases = CASES.iter().chain(SLOW_CASES);
        let case = cases.into_iter().find(|(known, _)| *known == name).expect("a case").1;
        case(&mut Memory(MemoryBroker::new())).await;
    }

    macro_rules! memory {
        ($($case:ident),+ $(,)?) => {
            $(#[tokio::test] async fn $case() { run(stringify!($case)).await; })+

            #[test]
            fn all_cases_run_here() {
                let here = [$(stringify!($case)),+];
                for (name, _) in CASES {
                    assert!(here.contains(name), "{name} is missing in the list of this module");
                }
            }
        };
    }

    #[tokio::test]
    async fn one_broker_is_like_another() {
        let (one, other) = (MemoryBroker::new(), MemoryBroker::new());
        random(&one.transport("one"), &other.transport("other"), 1, 2_000).await;
    }

    memory!(
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
        expiry_is_seen_and_recreation_expires_too,
        an_update_sets_the_time_to_live_anew,
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
        records_of_a_stream_expire,
        a_stream_changes_subjects,
        schedules_publish_when_it_is_time,
        a_work_queue_keeps_its_schedules_and_forgets_what_they_published,
        following_gives_all_then_what_is_new,
        a_slow_follower_misses_nothing,
        headers_can_be_followed_alone,
        a_record_that_is_sent_again_is_stored_once,
        records_are_removed_where_that_is_allowed,
        deliveries_are_acknowledged_once,
        deliveries_come_again_until_acknowledged,
        a_delivery_comes_so_often_at_most,
        consumers_bound_what_is_given_out,
        a_work_queue_forgets_what_is_done,
        holders_of_a_consumer_share,
        the_next_consumer_of_a_work_queue_gets_what_the_last_left,
        broker_away_fails_fast_and_comes_back,
        streams_survive_the_broker,
        watch_survives_the_broker,
        leaving_works_after_a_reconnect,
    );
}
