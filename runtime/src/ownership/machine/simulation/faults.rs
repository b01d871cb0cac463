//! What goes wrong, and how it is done.

use super::world::{DRAIN_MS, Event, Life, World};
use crate::ownership::machine::Input;

/// What goes wrong; the number is a node's place in the list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Crash(usize),
    Pause(usize, u64),
    /// The node's connection is gone for so long.
    Cut(usize, u64),
    /// The node's owning connection is gone for so long; what it renews its lease on is not.
    CutOwn(usize, u64),
    /// What nodes say to each other is lost for so long.
    Silence(u64),
    /// The node's watches stand still for so long.
    Lag(usize, u64),
    /// They are made again on a replica that is behind for so long.
    Behind(usize, u64),
    Drain(usize),
    Outage(u64),
}

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        if self.trace {
            println!("{:>6} FAULT {fault:?}", self.now);
        }
        // A node that has not started yet, or has ended, has nothing to lose.
        if let Fault::Crash(at)
        | Fault::Pause(at, _)
        | Fault::Cut(at, _)
        | Fault::CutOwn(at, _)
        | Fault::Lag(at, _)
        | Fault::Behind(at, _)
        | Fault::Drain(at) = fault
            && self.nodes.get(at).is_none_or(|node| node.life != Life::Up)
        {
            return;
        }
        match fault {
            Fault::Crash(at) => {
                self.nodes[at].life = Life::Crashed;
                self.end_own(at);
            }
            Fault::Pause(at, lasts) => self.nodes[at].paused_until = self.now + lasts,
            Fault::Cut(at, lasts) => {
                self.cut(at);
                self.after(lasts, Event::Link(at, self.nodes[at].link));
            }
            Fault::CutOwn(at, lasts) => {
                self.end_own(at);
                let (notices, client) = (self.random.between(1, 4_000), self.nodes[at].client);
                self.after(notices, Event::OwnDown(at, client));
                self.after(lasts, Event::OwnLink(at, client));
            }
            Fault::Lag(at, lasts) => self.lag(at, lasts),
            Fault::Behind(at, lasts) => self.fall_behind(at, lasts),
            Fault::Silence(lasts) => self.silent_until = self.now + lasts,
            Fault::Drain(at) => {
                self.nodes[at].told_to_drain = true;
                self.after(0, Event::Tell(at, Input::Drain { within: DRAIN_MS }));
            }
            Fault::Outage(lasts) => {
                self.broker.up = false;
                (0..self.nodes.len()).for_each(|at| self.cut(at));
                self.after(lasts, Event::BrokerUp);
            }
        }
    }

    /// One of all that can go wrong, and the next in a while.
    pub(super) fn random_fault(&mut self) {
        if !self.faulty {
            return;
        }
        let next = self.random.between(300, 5_000);
        self.after(next, Event::Fault);
        let up: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].life == Life::Up).collect();
        if up.is_empty() {
            return;
        }
        let at = up[self.random.between(0, up.len() as u64) as usize];
        let back = self.random.between(200, 10_000);
        let lasts = self.random.between(100, 10_000);
        match self.random.between(0, 100) {
            0..25 => {
                self.fault(Fault::Crash(at));
                if self.random.chance(75) {
                    self.after(back, Event::Start(self.nodes[at].slot));
                }
            }
            25..50 => self.fault(Fault::Pause(at, lasts)),
            50..60 if self.nodes[at].linked => self.fault(Fault::Cut(at, lasts)),
            60..70 if self.nodes[at].own => self.fault(Fault::CutOwn(at, lasts)),
            70..85 if !self.nodes[at].told_to_drain && !self.nodes[at].hosts.is_empty() => {
                self.fault(Fault::Drain(at));
                if self.random.chance(60) {
                    self.after(back, Event::Start(self.nodes[at].slot));
                }
            }
            85..92 if self.broker.up => self.fault(Fault::Outage(lasts)),
            92..96 => self.fault(Fault::Lag(at, lasts)),
            96..100 => self.fault(Fault::Behind(at, lasts)),
            _ => {}
        }
    }
}
