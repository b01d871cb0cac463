//! How trees, groups and children end: in order, in bounded time, and each node by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::super::supervisor::Order;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn h7_two_trees_live_side_by_side() {
    let (one, two, log) = (tree().await, tree().await, Log::default());
    let (group, [on_a, ..]) = trio(&one, &log, rule(Strategy::OneForAll)).await;
    let (same, _traps) = trio(&two, &log, rule(Strategy::OneForAll)).await;
    on_a.notify_one();
    soon(group.until(|report| all_running(report, [1, 1, 1]))).await;
    assert!(all_running(&same.report(), [0, 0, 0]));
    soon(one.stop(Duration::from_secs(5))).await;
    assert!(group.report().ended);
    assert!(all_running(&same.report(), [0, 0, 0]), "the other node goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_stop_ends_groups_and_children_in_reverse_order() {
    let (tree, log) = (tree().await, Log::default());
    let (first, _traps) = trio(&tree, &log, rule(Strategy::RestForOne)).await;
    let ((y, _on_y), (z, _on_z)) = (child(&log, "y"), child(&log, "z"));
    let second = tree.group("pair", rule(Strategy::OneForAll), vec![y, z]).await.expect("a group");
    started(&second).await;
    soon(tree.stop(Duration::from_secs(5))).await;
    assert_eq!(log.take(), "+y +z -z -y -c -b -a");
    for report in [first.report(), second.report()] {
        assert!(report.ended && report.gave_up.is_none());
        assert!(report.children.iter().all(|child| child.state == ChildState::Stopped));
    }
    let late = tree.group("late", Restart::default(), Vec::new()).await;
    assert_eq!(late.err().map(|error| error.kind()), Some(ErrorKind::Stopped));
    soon(tree.stop(Duration::ZERO)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn h7_stop_is_bounded_whatever_children_do() {
    let tree = tree().await;
    let deaf = ChildSpec::stoppable("deaf", |_stop| std::future::pending());
    let waiting = tree.group("deaf", Restart::default(), vec![deaf]).await.expect("a group");
    started(&waiting).await;
    let (entered, entering) = oneshot::channel();
    let entered = Mutex::new(Some(entered));
    let spinning = ChildSpec::task("spinning", move || {
        let entered = entered.lock().take();
        async move {
            let _ = entered.expect("started once").send(());
            std::thread::sleep(Duration::from_secs(2));
            Ok(())
        }
    });
    let spin = tree.group("spinning", Restart::default(), vec![spinning]).await.expect("a group");
    soon(entering).await.expect("it spins");
    let begun = Instant::now();
    tree.stop(Duration::from_millis(100)).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    // The deaf one was cut: it waits, and can be.
    assert!(soon(waiting.ended()).await.ended);
    assert!(soon(spin.ended()).await.ended, "its supervisor does not wait for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_a_deaf_child_is_cut_after_its_grace_and_then_restarted() {
    let (tree, log) = (tree().await, Log::default());
    let (a, on_a) = child(&log, "a");
    let deaf = ChildSpec::stoppable("deaf", |_stop| std::future::pending());
    let children = vec![a, deaf.with_grace(Duration::from_millis(20))];
    let group = tree.group("deaf", rule(Strategy::OneForAll), children).await.expect("a group");
    started(&group).await;
    on_a.notify_one();
    soon(group.until(|report| running(report, "a", 1) && running(report, "deaf", 1))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_the_deadline_of_a_stop_goes_before_the_grace_of_a_child() {
    let tree = tree().await;
    let deaf = ChildSpec::stoppable("deaf", |_stop| std::future::pending());
    let children = vec![deaf.with_grace(Duration::from_secs(3_600))];
    let group = tree.group("deaf", rule(Strategy::OneForAll), children).await.expect("a group");
    started(&group).await;
    // A later deadline first: the earlier one holds for a child that is stopping already.
    for seconds in [3_600, 0] {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
        group.actor.send_message(Order::Stop { deadline }).expect("the supervisor lives");
    }
    assert!(soon(group.ended()).await.ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_no_group_is_added_while_the_tree_stops() {
    let tree = Arc::new(tree().await);
    let (release, releasing) = (Trap::default(), Trap::default());
    let until = Arc::clone(&release);
    let slow = ChildSpec::stoppable("slow", move |_stop| {
        let until = Arc::clone(&until);
        async move {
            until.notified().await;
            Ok(())
        }
    });
    let group = tree.group("slow", Restart::default(), vec![slow]).await.expect("a group");
    started(&group).await;
    let (stopping, stopped) = (Arc::clone(&tree), Arc::clone(&releasing));
    tokio::spawn(async move {
        stopping.stop(Duration::from_secs(3_600)).await;
        stopped.notify_one();
    });
    soon(group.until(|report| report.children[0].state == ChildState::Stopping)).await;
    let late = tree.group("late", Restart::default(), Vec::new()).await;
    assert_eq!(late.err().map(|error| error.kind()), Some(ErrorKind::Stopped));
    release.notify_one();
    soon(releasing.notified()).await;
    assert!(group.report().ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn h7_dropping_the_tree_ends_its_children() {
    let tree = tree().await;
    let (alive, died) = oneshot::channel::<()>();
    let alive = Mutex::new(Some(alive));
    let spec = ChildSpec::task("guard", move || {
        let alive = alive.lock().take();
        async move {
            let _alive = alive;
            std::future::pending().await
        }
    });
    let group = tree.group("guard", Restart::default(), vec![spec]).await.expect("a group");
    started(&group).await;
    drop(tree);
    assert!(soon(died).await.is_err(), "its future was dropped");
}
