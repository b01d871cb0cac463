//! The systems, and how each of them is used.

use anyhow::anyhow;

/// What a system is called, and what it takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct System {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// What its messages pass on their way.
    pub between: Between,
    /// Whose program its two sides are in.
    pub program: Program,
    /// The crates whose versions matter.
    pub crates: &'static [&'static str],
    /// How it is used.
    pub how: &'static str,
}

/// What is between the two sides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Between {
    Nothing,
    Nats,
    Mosquitto,
}

/// Whose program a side is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// This one.
    Own,
    /// The one of `bench/peers`.
    Peers,
}

impl System {
    pub const GREENROOM: System = System {
        name: "greenroom",
        between: Between::Nats,
        program: Program::Own,
        crates: &["greenroom"],
        how: "ask of a keyed actor, 256 keys, one for each caller; all defaults on",
    };
    pub const ASYNC_NATS: System = System {
        name: "async-nats",
        between: Between::Nats,
        program: Program::Own,
        crates: &["async-nats"],
        how: "`client.request` and one subscription that publishes each reply; one connection for each side",
    };
    pub const TONIC_X4: System = System {
        name: "tonic-x4",
        between: Between::Nothing,
        program: Program::Peers,
        crates: &["tonic", "prost", "h2"],
        how: "the same over four connections, which callers have in turn",
    };
    pub const TONIC_STREAM: System = System {
        name: "tonic-stream",
        between: Between::Nothing,
        program: Program::Peers,
        crates: &["tonic", "prost", "h2"],
        how: "one stream in both directions over one connection for the calls of all, with a number in each message \
              by which the client finds the caller; the server gives the stream back as it is",
    };
    pub const RACTOR_CLUSTER: System = System {
        name: "ractor_cluster",
        between: Between::Nothing,
        program: Program::Peers,
        crates: &["ractor_cluster", "ractor"],
        how: "`call` of remote actors found by their process group, four of them (more are slower); plain TCP between the nodes",
    };

    /// All of them, in the order of tables.
    pub const ALL: [System; 10] = [
        Self::GREENROOM,
        Self::ASYNC_NATS,
        System {
            name: "tonic",
            between: Between::Nothing,
            program: Program::Peers,
            crates: &["tonic", "prost", "h2"],
            how: "unary calls over one connection; large windows and frames, 4096 streams, fields of type `Bytes`, buffers that \
                  fit the message",
        },
        Self::TONIC_X4,
        Self::TONIC_STREAM,
        System {
            name: "axum",
            between: Between::Nothing,
            program: Program::Peers,
            crates: &["axum", "hyper", "hyper-util"],
            how: "HTTP/1.1 posts by the client of hyper-util, with a pool of connections that stay open",
        },
        System {
            name: "mqtt-qos0",
            between: Between::Mosquitto,
            program: Program::Peers,
            crates: &["rumqttc"],
            how: "a topic for questions and one for answers, at most once; four bytes before the payload say whose it is",
        },
        System {
            name: "mqtt-qos1",
            between: Between::Mosquitto,
            program: Program::Peers,
            crates: &["rumqttc"],
            how: "the same, at least once",
        },
        Self::RACTOR_CLUSTER,
        System {
            name: "kameo",
            between: Between::Nothing,
            program: Program::Peers,
            crates: &["kameo", "libp2p"],
            how: "`ask` of remote actors found by their names; libp2p over TCP with noise and yamux, \
                  which encrypts, as every way in kameo's documentation does",
        },
    ];

    /// Those of `remote`.
    pub const REMOTE: [System; 2] = [Self::GREENROOM, Self::ASYNC_NATS];

    /// The one of this name.
    pub fn named(name: &str) -> anyhow::Result<System> {
        let names = Self::ALL.map(|system| system.name).join(", ");
        let found = Self::ALL.into_iter().find(|system| system.name == name);
        found.ok_or_else(|| anyhow!("there is no system {name:?}; there are {names}"))
    }
}
