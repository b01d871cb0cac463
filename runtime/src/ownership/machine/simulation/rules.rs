//! Rules that only a whole world can show: each test aims the faults at one of them.

use super::faults::Fault;
use super::for_seeds;
use super::world::{DRAIN_MS, Event, Fate, Life, Plan, World, Write};
use crate::ownership::record::{Claim, Entry, Key, Lease, Part};

/// What a check allows for a partition to be where it should be, whatever was killed or cut on the way: two leases,
/// one after the other, and what is doubted of them.
const BOUND_MS: u64 = 45_000;

/// A world in which everything has been at rest for a while.
fn at_rest(seed: u64, plan: Plan, trace: bool) -> Result<World, String> {
    let mut world = World::new(seed, plan, trace);
    world.run_for(20_000)?;
    world.check_settled()?;
    Ok(world)
}

/// Runs until everything is where it should be and stays there for a while.
fn settle(world: &mut World, within: u64) -> Result<(), String> {
    let until = world.now + within;
    loop {
        world.run_for(500)?;
        let mut settled = world.check_settled();
        if settled.is_ok() {
            // A node may be about to come back.
            world.run_for(3_000)?;
            settled = world.check_settled();
        }
        match settled {
            Err(_) if world.now < until => {}
            settled => return settled,
        }
    }
}

fn claims(world: &World) -> Vec<(Part, Claim)> {
    let claim = |entry: &Entry| match entry {
        Entry::Claim(part, claim) => Some((part.clone(), claim.clone())),
        _ => None,
    };
    world.broker.entries().filter_map(claim).collect()
}

/// A claim that its node sent while it lived, and that is stored when its lease has ended, frees nobody from looking:
/// newer than the death as it is, it stands on an older lease.
#[test]
fn late_claim_of_the_dead() {
    for_seeds(120, |seed, trace| {
        let tells = seed % 2 == 0;
        let mut world = at_rest(seed, Plan { tells, ..Plan::quiet(2 + (seed % 3) as usize) }, trace)?;
        let (dead, held) = (world.nodes[0].id.clone(), world.held_by(0));
        world.fault(Fault::Crash(0));
        let ended = |world: &World| match world.broker.entry(&Key::Lease(dead.clone())) {
            Some(Entry::Lease(_, Lease { ended_by, .. })) => ended_by.is_some(),
            _ => true,
        };
        while !ended(&world) {
            world.run_for(1)?;
        }
        let (at, mut late) = (world.now, 0);
        for (part, claim) in claims(&world).into_iter().filter(|(_, claim)| claim.node.as_ref() == Some(&dead)) {
            let expect = world.broker.revision_of(&Key::Part(part.clone()));
            let claim = Claim { nonce: "late".to_owned(), ..claim };
            world.after(0, Event::Write(0, Write::Put(Entry::Claim(part, claim), expect, 0), Fate::Unheard));
            late += 1;
        }
        world.run_for(0)?;
        if late < held {
            return Err(format!("{} of {held} claims were taken before they could be late", held - late));
        }
        // After a tombstone at once; after an expiry when it has been believed: less than a lease that is waited for
        // because nothing is known of it.
        world.run_for(if tells { 2_000 } else { 5_500 })?;
        let left = claims(&world).into_iter().filter(|(_, claim)| claim.node.as_ref() == Some(&dead)).count();
        if left > 0 {
            return Err(format!("{left} of {held} claims of {dead} stand {} ms after its end", world.now - at));
        }
        settle(&mut world, BOUND_MS)
    });
}

/// Forty seconds without a broker, longer than any lease: whoever lived through it keeps what it had. What a node held
/// that died meanwhile moves, some of it twice: they do not come back at once, so the second in order may be quicker.
/// The last to come back needs longer than it takes to believe an expiry, were the broker not to blame.
#[test]
fn broker_down_40s() {
    for_seeds(60, |seed, trace| {
        let nodes = 2 + (seed % 5) as usize;
        let mut world = at_rest(seed, Plan::quiet(nodes), trace)?;
        let dies = seed % 3 == 0;
        let (moves, held) = (world.broker.moves, if dies { world.held_by(0) } else { 0 });
        world.fault(Fault::Outage(40_000));
        world.run_for(20_000)?;
        if dies {
            world.fault(Fault::Crash(0));
        }
        world.run_for(20_000)?;
        world.fault(Fault::Cut(nodes - 1, 3_000));
        settle(&mut world, BOUND_MS)?;
        let moved = world.broker.moves - moves;
        if !(held..=2 * held).contains(&moved) {
            return Err(format!("{moved} claims moved, {held} had lost their node"));
        }
        Ok(())
    });
}

/// Which planned handover, and what is done to it.
const TRIGGERS: u64 = 2;
const TROUBLES: u64 = 15;
/// How long the one who is cut off, or stopped, is so.
const LASTS_MS: u64 = 4_000;
/// As long as it may be without anybody's believing that it has died.
const SHORT_MS: u64 = 600;

/// A world in which a handover has just been set off, with its giver and its heir.
fn handing_over(seed: u64, trigger: u64, tells: bool) -> Result<Option<(World, usize, usize)>, String> {
    let plan = Plan { partitions: 2, clients: 0, tells, ..Plan::quiet(3) };
    let mut world = at_rest(seed, plan, false)?;
    let before = claims(&world);
    let index =
        |world: &World, claim: &Claim| world.nodes.iter().position(|node| Some(&node.id) == claim.node.as_ref());
    // What would happen undisturbed shows who gives to whom.
    let set_off = |world: &mut World| match trigger {
        0 => world.fault(Fault::Drain((seed % 3) as usize)),
        _ => world.after(0, Event::Start((seed % 3) as usize)),
    };
    let mut undisturbed = world.clone();
    set_off(&mut undisturbed);
    settle(&mut undisturbed, BOUND_MS)?;
    let moved = claims(&undisturbed).into_iter().zip(before).find(|((_, now), (_, then))| now.node != then.node);
    let pair = moved.and_then(|((_, now), (_, then))| Some((index(&world, &then)?, index(&undisturbed, &now)?)));
    set_off(&mut world);
    Ok(pair.map(|(old, new)| (world, old, new)))
}

/// How many inputs and effects there are until a handover is over, and nothing of it is under way.
fn length(world: &World, old: usize, new: usize) -> Result<u64, String> {
    let mut world = world.clone();
    let (from, until) = (world.boundaries, world.now + BOUND_MS);
    loop {
        world.run_for(1)?;
        let there = world.nodes.len() > new;
        let done = world.nodes[old].life == Life::Ended || !world.nodes[old].told_to_drain;
        if there && done && world.check_settled().is_ok() {
            return Ok(world.boundaries - from);
        }
        if world.now > until {
            return Err("the handover does not end by itself".to_owned());
        }
    }
}

fn trouble(kind: u64, old: usize, new: usize) -> Vec<Fault> {
    match kind {
        0 => vec![Fault::Crash(old)],
        1 => vec![Fault::Crash(new)],
        2 => vec![Fault::Crash(old), Fault::Crash(new)],
        3 => vec![Fault::Cut(old, LASTS_MS)],
        4 => vec![Fault::Cut(new, LASTS_MS)],
        5 => vec![Fault::CutOwn(old, LASTS_MS)],
        6 => vec![Fault::CutOwn(new, LASTS_MS)],
        7 => vec![Fault::Pause(old, LASTS_MS)],
        8 => vec![Fault::Pause(new, LASTS_MS)],
        // The answer to the transfer is lost with whom it is for, or with whom it is about.
        9 => vec![Fault::Cut(old, SHORT_MS), Fault::Crash(new)],
        10 => vec![Fault::Cut(new, LASTS_MS), Fault::Crash(old)],
        // The heir has reason to give up what it holds.
        11 => vec![Fault::Drain(new)],
        12 => vec![Fault::Cut(old, LASTS_MS), Fault::Drain(new)],
        13 => vec![Fault::Silence(LASTS_MS), Fault::Drain(new)],
        // Nobody takes anything within the time of the drain.
        _ => vec![Fault::Silence(DRAIN_MS)],
    }
}

/// Runs until what is planned has gone wrong, and has lasted.
fn strike(world: &mut World) -> Result<(), String> {
    let until = world.now + BOUND_MS;
    while world.planned.is_some() {
        world.run_for(10)?;
        if world.now > until {
            return Err("what was planned never came".to_owned());
        }
    }
    world.run_for(LASTS_MS)
}

/// Before every input and after every effect of a planned handover, on either side: kill the old owner, the new one,
/// both; cut one of them off, or its owning connection; stop one for a while; have the heir leave; lose what they say to
/// each other; and some of that together. Afterwards every partition has one live owner, nobody served without a claim,
/// no key had turns on both sides, and nobody is left holding calls.
#[test]
fn kill_at_every_handover_step() {
    let tried = std::sync::Mutex::new((0_u64, 0_u64));
    for_seeds(TRIGGERS * TROUBLES * 2, |seed, trace| {
        let (trigger, kind, tells) = (seed % TRIGGERS, seed / TRIGGERS % TROUBLES, seed / TRIGGERS / TROUBLES == 0);
        // Not every node has something to give, or comes first for something.
        let found = (0..20).find_map(|more| handing_over(seed + 100 * more, trigger, tells).transpose());
        let (base, old, new) = found.ok_or("nobody hands anything over")??;
        let steps = length(&base, old, new)?;
        for step in 0..steps {
            let play = |trace| {
                let mut world = base.clone();
                (world.trace, world.planned) = (trace, Some((step, trouble(kind, old, new))));
                strike(&mut world).and_then(|()| settle(&mut world, BOUND_MS))
            };
            // Of so many moments only the one that goes wrong is to be read.
            let played = play(false).or_else(|error| if trace { play(true) } else { Err(error) });
            played.map_err(|error| format!("trouble {kind} at step {step} of {steps}: {error}"))?;
        }
        let mut tried = tried.lock().map_err(|_| "another seed panicked")?;
        *tried = (tried.0 + 1, tried.1 + steps);
        Ok(())
    });
    let tried = tried.into_inner().expect("no seed panicked");
    println!("{} handovers, {} moments", tried.0, tried.1);
    let one = std::env::var_os("GREENROOM_SEED").is_some();
    assert!(one || tried.1 > 40 * tried.0, "a handover has more moments than that: {tried:?}");
}
