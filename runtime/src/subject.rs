//! Subjects: every subject that the runtime speaks on is made here, and nowhere else.
//!
//! The client library lets `*`, `>` and empty tokens through in a publish subject; a [`Subject`]
//! can only be put together from checked parts, so none of these can be sent. The grammar is in
//! `docs/wire.md`.

mod reminder;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::key::Key;

/// Names that mean something to the runtime and can be no actor.
pub const RESERVED: &[&str] = &["@", "node", "evt", "on", "cmd", "rem", "dead"];

/// The name of an app, an actor or a verb: `[a-z][a-z0-9_]*`, at most 64 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is not of the form `[a-z][a-z0-9_]*`, is longer than 64 bytes,
    /// or is [`RESERVED`].
    pub fn new(text: &str) -> Result<Self, Error> {
        let mut bytes = text.bytes();
        let well_formed = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
            && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !well_formed || text.len() > 64 {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{text:?} is not a name: write lower-case letters, digits and '_', a letter first, at most 64"),
            ));
        }
        if RESERVED.contains(&text) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{text:?} is reserved (so are {RESERVED:?}): choose another name"),
            ));
        }
        Ok(Self(text.into()))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A subject to publish to: no wildcard, no empty token, no white space.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

/// A subject to subscribe to, which may hold wildcards.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter(Arc<str>);

impl Subject {
    /// Checks a subject that came from outside, such as a reply subject.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`] if a token is empty or holds a wildcard, white space or a control
    /// character.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let sound = text.len() <= 1024
            && text.split('.').all(|token| {
                !token.is_empty()
                    && token != ">"
                    && token != "*"
                    && !token.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
            });
        if sound {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(ErrorKind::BadRequest, format!("{text:?} is not a subject to publish to")))
        }
    }

    /// The text, as the broker sees it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text as a filter that matches only this subject.
    pub fn to_filter(&self) -> Filter {
        Filter(self.0.clone())
    }

    fn of(text: String) -> Self {
        Self(text.into())
    }
}

impl Filter {
    /// The text, as the broker sees it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a message on this subject would be delivered.
    pub(crate) fn matches(&self, subject: &str) -> bool {
        let mut tokens = subject.split('.');
        for wanted in self.0.split('.') {
            match (wanted, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(token)) if wanted == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }

    /// Whether some subject could match both.
    pub(crate) fn overlaps(&self, other: &Filter) -> bool {
        let (mut ours, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(one), Some(two)) if one == two || one == "*" || two == "*" => {}
                _ => return false,
            }
        }
    }

    /// A filter from text that the runtime itself wrote.
    pub(crate) fn of(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The verb that a node publishes to find out whether the broker maps keyed subjects. It starts
/// with `=`, which no verb does, so owners can tell it from a call.
pub(crate) const PROBE_VERB: &str = "=probe";

/// The verb of the messages that flush a subscription which is leaving a queue group.
pub(crate) const FLUSH_VERB: &str = "=flush";

/// The subjects of one app.
#[derive(Clone, Debug)]
pub struct Subjects {
    app: Name,
}

impl Subjects {
    /// The subjects of this app.
    pub fn new(app: Name) -> Self {
        Self { app }
    }

    /// The app's name.
    pub fn app(&self) -> &Name {
        &self.app
    }

    /// `{app}.{actor}.{key}.{verb}`: where anybody calls a keyed actor.
    pub fn call(&self, actor: &str, key: &Key, verb: &str) -> Subject {
        self.call_token(actor, &key.token(), verb)
    }

    pub(crate) fn call_token(&self, actor: &str, token: &str, verb: &str) -> Subject {
        Subject::of(format!("{}.{actor}.{token}.{verb}", self.app))
    }

    /// `{app}.{actor}.*.*`: what forwards where the broker has no mapping.
    pub fn calls(&self, actor: &str) -> Filter {
        Filter::of(format!("{}.{actor}.*.*", self.app))
    }

    /// `{app}.{service}.{verb}`: where anybody calls a service.
    pub fn service(&self, service: &str, verb: &str) -> Subject {
        Subject::of(format!("{}.{service}.{verb}", self.app))
    }

    /// `{app}.{service}.*`: where a service listens, in its queue group.
    pub fn services(&self, service: &str) -> Filter {
        Filter::of(format!("{}.{service}.*", self.app))
    }

    /// `{app}.@.{partition}.{actor}.*.*`: where the owner of a partition listens.
    pub fn owner(&self, actor: &str, partition: u16) -> Filter {
        Filter::of(format!("{}.@.{partition}.{actor}.*.*", self.app))
    }

    /// `{app}.@.{partition}.{actor}.{key}.{verb}`.
    pub(crate) fn owner_token(&self, actor: &str, partition: u16, token: &str, verb: &str) -> Subject {
        Subject::of(format!("{}.@.{partition}.{actor}.{token}.{verb}", self.app))
    }

    /// `{app}.@.*.{actor}.{token}.{verb}`: where a probe arrives if the broker has the mapping.
    pub(crate) fn probe(&self, actor: &str, token: &str) -> Filter {
        Filter::of(format!("{}.@.*.{actor}.{token}.{PROBE_VERB}", self.app))
    }

    /// `{app}.node.{id}.{verb}`: node to node.
    pub fn node(&self, id: &str, verb: &str) -> Subject {
        Subject::of(format!("{}.node.{id}.{verb}", self.app))
    }

    /// `{app}.node.{id}.r.{number}`: where the answer to one of the node's own messages goes.
    pub fn node_reply(&self, id: &str, number: u64) -> Subject {
        Subject::of(format!("{}.node.{id}.r.{number}", self.app))
    }

    /// `{app}.node.{id}.>`: everything a node is told.
    pub fn node_all(&self, id: &str) -> Filter {
        Filter::of(format!("{}.node.{id}.>", self.app))
    }

    /// `{app}.evt.{actor}.{key}`: an actor's journal.
    pub fn journal(&self, actor: &str, key: &Key) -> Subject {
        Subject::of(format!("{}.evt.{actor}.{}", self.app, key.token()))
    }

    /// `{app}.evt.{actor}.*`: every journal of an actor type.
    pub fn journals(&self, actor: &str) -> Filter {
        Filter::of(format!("{}.evt.{actor}.*", self.app))
    }

    /// The stream that holds the journals of an actor type: `{app}-evt-{actor}`.
    pub fn journal_stream(&self, actor: &str) -> String {
        format!("{}-evt-{actor}", self.app)
    }

    /// `{app}.cmd.{actor}.{key}.{verb}`: where a durable tell is published.
    pub fn command(&self, actor: &str, key: &Key, verb: &str) -> Subject {
        Subject::of(format!("{}.cmd.{actor}.{}.{verb}", self.app, key.token()))
    }

    /// `{app}.cmd.*.*.*`: every durable tell, as it is published.
    pub fn commands(&self) -> Filter {
        Filter::of(format!("{}.cmd.*.*.*", self.app))
    }

    /// `{app}.cmd.{lane}.{actor}.*.*`: the durable tells of one lane of an actor type, as they are stored.
    pub fn lane(&self, actor: &str, lane: u16) -> Filter {
        Filter::of(format!("{}.cmd.{lane}.{actor}.*.*", self.app))
    }

    /// `{app}.cmd.{actor}.*.*`: the durable tells of an actor type, as they are published.
    pub(crate) fn commands_for(&self, actor: &str) -> Filter {
        Filter::of(format!("{}.cmd.{actor}.*.*", self.app))
    }

    /// `{app}.cmd.*.{actor}.*.*`: the same as they are stored, in any lane.
    pub(crate) fn lanes(&self, actor: &str) -> Filter {
        Filter::of(format!("{}.cmd.*.{actor}.*.*", self.app))
    }

    /// What puts the lane into the subject of a durable tell, for the stream's own transform.
    pub(crate) fn command_transform(&self, lanes: u16) -> (String, String) {
        let app = &self.app;
        let stored = format!(
            "{app}.cmd.{{{{partition({lanes},2)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{{{{wildcard(3)}}}}"
        );
        (self.commands().as_str().to_owned(), stored)
    }

    /// The stream of durable tells: `{app}-cmd`.
    pub fn command_stream(&self) -> String {
        format!("{}-cmd", self.app)
    }

    /// `{app}.dead.{actor}.{key}.{verb}`, with the key's token as it came.
    ///
    /// # Errors
    /// `BadRequest` if that is no subject.
    pub(crate) fn dead(&self, call: &Call<'_>) -> Result<Subject, Error> {
        Subject::parse(&format!("{}.dead.{}.{}.{}", self.app, call.actor, call.token, call.verb))
    }

    /// Dead letters: of one actor type, or all.
    pub fn deads(&self, actor: Option<&str>) -> Filter {
        Filter::of(format!("{}.dead.{}.*.*", self.app, actor.unwrap_or("*")))
    }

    /// The stream of dead letters: `{app}-dead`.
    pub fn dead_stream(&self) -> String {
        format!("{}-dead", self.app)
    }

    /// The bucket in which relays keep how far they have come: `{app}-relay`.
    pub fn relay_bucket(&self) -> String {
        format!("{}-relay", self.app)
    }

    /// Where the broker says that the journals of an actor type have another leader.
    pub fn elections(&self, actor: &str) -> Filter {
        Filter::of(format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{}", self.journal_stream(actor)))
    }

    /// `{app}.on.{actor}.{event}.{key}`: the live echo of an event.
    pub fn live(&self, actor: &str, event: &str, key: &Key) -> Subject {
        Subject::of(format!("{}.on.{actor}.{event}.{}", self.app, key.token()))
    }

    /// `{app}.node.sys.disconnect`: where the broker says that a connection has ended, if its configuration passes
    /// that on. Nobody but the broker may publish there.
    pub fn disconnects(&self) -> Filter {
        Filter::of(format!("{}.node.sys.disconnect", self.app))
    }

    /// `{app}.node.any.*`: what any node may answer.
    pub fn any_node(&self) -> Filter {
        Filter::of(format!("{}.node.any.*", self.app))
    }

    /// The live echoes of an actor: of one event or all, of one key or all.
    pub fn lives(&self, actor: &str, event: Option<&str>, key: Option<&Key>) -> Filter {
        let key = key.map_or_else(|| "*".to_owned(), Key::token);
        Filter::of(format!("{}.on.{actor}.{}.{key}", self.app, event.unwrap_or("*")))
    }

    /// The bucket in which members, leases and claims are kept: `{app}-own`.
    pub fn ownership_bucket(&self) -> String {
        format!("{}-own", self.app)
    }

    /// The name under which an actor or a service is announced: `{app}-{actor}`.
    pub fn announced(&self, actor: &str) -> String {
        format!("{}-{actor}", self.app)
    }

    /// Whether this is where somebody waits who is no node: an inbox, or a service import's reply.
    pub(crate) fn is_inbox(reply: &str) -> bool {
        reply.starts_with("_INBOX.") || reply.starts_with("_R_.")
    }

    /// Whether a reply may be sent to this subject: an inbox, a service import's reply, or a node
    /// of this app. Any other may be a stream's subject, where a reply would become stored data.
    pub fn may_reply_to(&self, reply: &str) -> bool {
        Subject::parse(reply).is_ok()
            && (Self::is_inbox(reply)
                || reply
                    .strip_prefix(self.app.as_str())
                    .and_then(|rest| rest.strip_prefix(".node."))
                    .is_some_and(|rest| rest.split('.').nth(1) == Some("r")))
    }

    /// The node of this app that awaits a reply there, if that is one's subject for replies.
    pub(crate) fn asker<'a>(&self, reply: &'a str) -> Option<&'a str> {
        let rest = reply.strip_prefix(self.app.as_str())?.strip_prefix(".node.")?;
        let mut tokens = rest.split('.');
        let id = tokens.next().filter(|id| !id.is_empty())?;
        (tokens.next() == Some("r") && Subject::parse(reply).is_ok()).then_some(id)
    }
}

/// What a received subject asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call<'a> {
    pub(crate) actor: &'a str,
    pub(crate) token: &'a str,
    pub(crate) verb: &'a str,
}

impl<'a> Call<'a> {
    /// Reads `{app}.{actor}.{key}.{verb}` or `{app}.@.{partition}.{actor}.{key}.{verb}`.
    pub(crate) fn keyed(subject: &'a str) -> Option<Self> {
        let mut tokens = subject.split('.').skip(1);
        let first = tokens.next()?;
        let actor = if first == "@" { tokens.nth(1)? } else { first };
        let call = Call { actor, token: tokens.next()?, verb: tokens.next()? };
        tokens.next().is_none().then_some(call)
    }

    /// Reads `{app}.cmd.{lane}.{actor}.{key}.{verb}`, as durable tells are stored, or
    /// `{app}.dead.{actor}.{key}.{verb}`.
    pub(crate) fn kept(subject: &'a str) -> Option<Self> {
        let mut tokens = subject.split('.').skip(1);
        match tokens.next()? {
            "cmd" => drop(tokens.next()?),
            "dead" => {}
            _ => return None,
        }
        let call = Call { actor: tokens.next()?, token: tokens.next()?, verb: tokens.next()? };
        tokens.next().is_none().then_some(call)
    }

    /// Reads `{app}.{service}.{verb}`.
    pub(crate) fn service(subject: &'a str) -> Option<Self> {
        let mut tokens = subject.split('.').skip(1);
        let call = Call { actor: tokens.next()?, token: "", verb: tokens.next()? };
        tokens.next().is_none().then_some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_empty_tokens_are_no_subject() {
        for text in ["", ".", "a..b", "a.*", "a.>", "a b", "a.\tb", "a.b.", "a\r\n.b"] {
            assert!(Subject::parse(text).is_err(), "{text:?}");
        }
        assert!(Subject::parse("_INBOX.a.1").is_ok());
    }

    #[test]
    fn reserved_and_dashed_names_are_refused() {
        for text in ["node", "evt", "on", "cmd", "rem", "dead", "@", "a-b", "A", "1a", "", "a.b"] {
            assert!(Name::new(text).is_err(), "{text:?}");
        }
        assert!(Name::new("order_line2").is_ok());
    }

    #[test]
    fn replies_go_to_inboxes_and_nodes_only() {
        let subjects = Subjects::new(Name::new("shop").expect("a name"));
        for reply in ["_INBOX.x.1", "_R_.a.b", "shop.node.n1.r.7"] {
            assert!(subjects.may_reply_to(reply), "{reply}");
        }
        for reply in ["shop.evt.order.1", "$JS.API.x", "shop.order.1.place", "shop.node.n1.drain", "_INBOX.*", ""] {
            assert!(!subjects.may_reply_to(reply), "{reply}");
        }
    }

    #[test]
    fn both_forms_of_a_call_read_alike() {
        let expected = Call { actor: "order", token: "42", verb: "place" };
        assert_eq!(Call::keyed("shop.order.42.place").as_ref(), Some(&expected));
        assert_eq!(Call::keyed("shop.@.3.order.42.place").as_ref(), Some(&expected));
        assert_eq!(Call::keyed("shop.order.42"), None);
        assert_eq!(Call::keyed("shop.order.42.place.more"), None);
    }
}
