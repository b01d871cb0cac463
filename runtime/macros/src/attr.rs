//! What stands in an attribute's parentheses: `Order, ask, reply = Placed, messages(Place, Get)`.
//!
//! Every attribute reads its arguments as one list of [`Arg`]s and then takes those it knows. What
//! cannot be read is one problem, and what stood before it still counts, so that a slip in one
//! argument does not hide the others.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Ident, Lit, LitInt, LitStr, Token, Type, parenthesized, token};

use crate::check::{Problems, show};

/// One argument of an attribute.
pub(crate) enum Arg {
    /// `Order`, `ask`, `service`
    Word(Type),
    /// `key = value`
    Pair(Ident, Value),
    /// `key(A, B)`
    List(Ident, Vec<Type>),
}

/// What stands to the right of `=`.
pub(crate) enum Value {
    Lit(Lit),
    Type(Type),
}

impl Parse for Arg {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(Ident) && input.peek2(Token![=]) {
            let key = input.parse()?;
            input.parse::<Token![=]>()?;
            let value = if input.peek(Lit) { Value::Lit(input.parse()?) } else { Value::Type(input.parse()?) };
            return Ok(Arg::Pair(key, value));
        }
        if input.peek(Ident) && input.peek2(token::Paren) {
            let key = input.parse()?;
            let list;
            parenthesized!(list in input);
            let types = Punctuated::<Type, Token![,]>::parse_terminated(&list)?;
            return Ok(Arg::List(key, types.into_iter().collect()));
        }
        input.parse().map(Arg::Word)
    }
}

impl Arg {
    /// The key, or the word if it is a single identifier.
    pub(crate) fn key(&self) -> Option<&Ident> {
        match self {
            Arg::Word(Type::Path(path)) => path.path.get_ident(),
            Arg::Word(_) => None,
            Arg::Pair(key, _) | Arg::List(key, _) => Some(key),
        }
    }

    /// Whether it is this bare word.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(self, Arg::Word(_)) && self.key().is_some_and(|key| key == word)
    }

    pub(crate) fn span(&self) -> Span {
        match self {
            Arg::Word(word) => word.span(),
            Arg::Pair(key, _) | Arg::List(key, _) => key.span(),
        }
    }

    fn text(&self) -> String {
        match self {
            Arg::Word(word) => show(word),
            Arg::Pair(key, _) | Arg::List(key, _) => key.to_string(),
        }
    }

    /// Reports it as one that this attribute does not have; `known` names those that it has.
    pub(crate) fn unknown(&self, attribute: &str, known: &str, problems: &mut Problems) {
        let text = self.text();
        problems.at(self.span(), format!("#[{attribute}] has no `{text}`; it takes {known}"));
    }
}

impl Value {
    fn span(&self) -> Span {
        match self {
            Value::Lit(lit) => lit.span(),
            Value::Type(ty) => ty.span(),
        }
    }

    /// A type, as in `reply = Placed`.
    pub(crate) fn ty(self, key: &Ident, problems: &mut Problems) -> Option<Type> {
        match self {
            Value::Type(ty) => Some(ty),
            Value::Lit(_) => {
                problems.at(self.span(), format!("`{key}` is a type, as in `{key} = Placed`"));
                None
            }
        }
    }

    /// A text, as in `name = "order"`.
    pub(crate) fn text(self, key: &Ident, problems: &mut Problems) -> Option<LitStr> {
        match self {
            Value::Lit(Lit::Str(text)) => Some(text),
            _ => {
                problems.at(self.span(), format!("`{key}` is a text: write `{key} = \"..\"`"));
                None
            }
        }
    }

    /// A whole number, as in `code = 404`.
    pub(crate) fn number(self, key: &Ident, problems: &mut Problems) -> Option<LitInt> {
        match self {
            Value::Lit(Lit::Int(number)) => Some(number),
            _ => {
                problems.at(self.span(), format!("`{key}` is a whole number: write `{key} = 1`"));
                None
            }
        }
    }

    /// A single identifier, as in `state = order`.
    pub(crate) fn ident(self, key: &Ident, problems: &mut Problems) -> Option<Ident> {
        if let Value::Type(Type::Path(path)) = &self
            && let Some(ident) = path.path.get_ident()
        {
            return Some(ident.clone());
        }
        problems.at(self.span(), format!("`{key}` is the name of a field: write `{key} = field`"));
        None
    }
}

/// Reads an attribute's arguments.
pub(crate) fn args(tokens: TokenStream, problems: &mut Problems) -> Vec<Arg> {
    let mut args = Vec::new();
    let read = |input: ParseStream<'_>| {
        while !input.is_empty() {
            args.push(input.parse()?);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    };
    if let Err(error) = read.parse2(tokens) {
        problems.push(error);
    }
    args
}

/// Keeps an argument that may be given once.
pub(crate) fn once<T: ToTokens>(slot: &mut Option<T>, value: Option<T>, what: &str, problems: &mut Problems) {
    let Some(value) = value else { return };
    if slot.is_some() {
        problems.at(value.span(), format!("{what} is given twice: keep one"));
    } else {
        *slot = Some(value);
    }
}
