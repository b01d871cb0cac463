//! A stream's own change of subjects, as a server does it.

use crate::error::{Error, ErrorKind};
use crate::key::fnv1a32;
use crate::subject::Filter;

/// Has records stored under another subject than they were published on.
#[derive(Debug)]
pub(super) struct Transform {
    source: Filter,
    destination: Vec<Token>,
}

/// A token of the destination. Wildcards count from 0.
#[derive(Debug, PartialEq)]
enum Token {
    Text(String),
    Wildcard(usize),
    Partition(u32, Vec<usize>),
}

impl Transform {
    /// Takes the forms `{{wildcard(n)}}` and `{{partition(count,n,…)}}`.
    pub(super) fn new(source: &str, destination: &str) -> Result<Self, Error> {
        let wildcards = source.split('.').filter(|token| *token == "*").count();
        let tokens = destination.split('.').map(|token| Token::parse(token, wildcards)).collect();
        let Some(destination) = tokens else {
            let message = format!("{source:?} cannot be stored as {destination:?}: see {{{{wildcard(1)}}}}");
            return Err(Error::new(ErrorKind::Config, message));
        };
        Ok(Self { source: Filter::of(source), destination })
    }

    /// Where a record with this subject is stored instead.
    pub(super) fn apply(&self, subject: &str) -> Option<String> {
        if !self.source.matches(subject) {
            return None;
        }
        let both = self.source.as_str().split('.').zip(subject.split('.'));
        let wildcards: Vec<&str> = both.filter(|(wanted, _)| *wanted == "*").map(|(_, token)| token).collect();
        let tokens = self.destination.iter().map(|token| match token {
            Token::Text(text) => text.clone(),
            Token::Wildcard(at) => wildcards[*at].to_owned(),
            Token::Partition(count, at) => {
                let hashed: String = at.iter().map(|at| wildcards[*at]).collect();
                (fnv1a32(&hashed) % count).to_string()
            }
        });
        Some(tokens.collect::<Vec<_>>().join("."))
    }
}

impl Token {
    fn parse(token: &str, wildcards: usize) -> Option<Self> {
        let Some(call) = token.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")) else {
            return (!token.is_empty() && !token.contains(['*', '>'])).then(|| Token::Text(token.to_owned()));
        };
        let (name, arguments) = call.trim().strip_suffix(')')?.split_once('(')?;
        let numbers: Vec<usize> =
            arguments.split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>()?;
        let at = |number: &usize| number.checked_sub(1).filter(|at| *at < wildcards);
        match (name.trim().to_ascii_lowercase().as_str(), numbers.as_slice()) {
            ("wildcard", [number]) => at(number).map(Token::Wildcard),
            ("partition", [count, numbers @ ..]) if *count > 0 && !numbers.is_empty() => {
                Some(Token::Partition(u32::try_from(*count).ok()?, numbers.iter().map(at).collect::<Option<_>>()?))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_partitions_are_put_in() {
        let transform = Transform::new(
            "shop.cmd.*.*.*",
            "shop.cmd.{{partition(64,2)}}.{{wildcard(1)}}.{{ wildcard(2) }}.{{wildcard(3)}}",
        )
        .expect("a transform");
        assert_eq!(transform.apply("shop.cmd.order.42.place").as_deref(), Some("shop.cmd.3.order.42.place"));
        assert_eq!(transform.apply("shop.cmd.order.42"), None);
        for bad in ["a.{{wildcard(4)}}", "a.{{partition(0,1)}}", "a.{{what(1)}}", "a..b", "a.{{wildcard(0)}}"] {
            assert!(Transform::new("shop.cmd.*.*.*", bad).is_err(), "{bad}");
        }
    }
}
