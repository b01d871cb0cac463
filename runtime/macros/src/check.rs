//! What all attributes check, and how they say it.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{Ident, Type};

/// The mistakes found in one item, reported together.
#[derive(Default)]
pub(crate) struct Problems(Option<syn::Error>);

impl Problems {
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(crate) fn at(&mut self, span: Span, text: impl std::fmt::Display) {
        self.push(syn::Error::new(span, text));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// One `compile_error!` for each.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.0.map(syn::Error::into_compile_error).unwrap_or_default()
    }
}

/// How a message is sent and handled: `ask`, `read` or `tell`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Ask,
    Read,
    Tell,
}

impl Mode {
    pub(crate) const ALL: [Mode; 3] = [Mode::Ask, Mode::Read, Mode::Tell];

    pub(crate) fn of(word: &Ident) -> Option<Mode> {
        Self::ALL.into_iter().find(|mode| word == mode.word())
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Mode::Ask => "ask",
            Mode::Read => "read",
            Mode::Tell => "tell",
        }
    }

    /// With its article, for sentences.
    pub(crate) fn one(self) -> &'static str {
        match self {
            Mode::Ask => "an ask",
            Mode::Read => "a read",
            Mode::Tell => "a tell",
        }
    }

    /// The name of the type in `contract::mode` and of the variant of `contract::Mode`.
    pub(crate) fn ident(self) -> TokenStream {
        match self {
            Mode::Ask => quote!(Ask),
            Mode::Read => quote!(Read),
            Mode::Tell => quote!(Tell),
        }
    }
}

/// `OrderPlaced` as `order_placed`, by the rule of serde's `rename_all`: an underscore before each
/// capital. Where a name stands in a subject and in JSON, the two are then the same.
pub(crate) fn snake_case(ident: &Ident) -> String {
    let mut snake = String::new();
    for (at, letter) in ident.unraw().to_string().char_indices() {
        if at > 0 && letter.is_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Names that mean something to the runtime, as in `greenroom::subject::RESERVED`.
const RESERVED: [&str; 6] = ["node", "evt", "on", "cmd", "rem", "dead"];

/// Why this cannot be a token of a subject, if it cannot.
pub(crate) fn token_problem(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let well_formed = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if well_formed && text.len() <= 64 {
        return None;
    }
    Some(format!(
        "{text:?} cannot stand in a subject: \
         write lower-case letters, digits and '_', a letter first, at most 64"
    ))
}

/// Why this cannot be the name of an actor or of a verb, if it cannot.
pub(crate) fn name_problem(text: &str) -> Option<String> {
    if RESERVED.contains(&text) {
        let reserved = RESERVED.join(", ");
        return Some(format!("{text:?} is reserved (so are {reserved}): choose another name"));
    }
    token_problem(text)
}

/// A type as people write it.
pub(crate) fn show(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (spaced, tight) in
        [(" :: ", "::"), (":: ", "::"), (" < ", "<"), ("< ", "<"), (" >", ">"), (" ,", ","), ("& ", "&"), ("' ", "'")]
    {
        text = text.replace(spaced, tight);
    }
    text
}

/// The last name of a type's path: `Place` of `contract::Place`.
pub(crate) fn last_segment(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| &segment.ident),
        Type::Group(group) => last_segment(&group.elem),
        Type::Paren(paren) => last_segment(&paren.elem),
        _ => None,
    }
}

/// The place of this span, marked as written by the attribute: errors show the user's line, and
/// lints know that the user did not write what stands there.
pub(crate) fn located(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// The verbs of a contract, for assertions. Taken through a generic function: if the contract's
/// list is in doubt, that is said once, at the list.
pub(crate) fn verbs(contract: &impl ToTokens) -> TokenStream {
    quote!({
        const fn verbs<C: ::greenroom::contract::Contract>() -> &'static [&'static str] {
            <C::Messages as ::greenroom::contract::MessageList>::VERBS
        }
        verbs::<#contract>()
    })
}

/// An assertion for a `const _: () = { .. }`, whose failure shows `text` at `span`.
pub(crate) fn assert(span: Span, condition: TokenStream, text: &str) -> TokenStream {
    // The text is a format string.
    let text = text.replace('{', "{{").replace('}', "}}");
    quote_spanned! {located(span)=>
        ::core::assert!(#condition, #text);
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn snake_case_is_that_of_serde() {
        for (camel, snake) in [
            ("Place", "place"),
            ("PlaceOrder", "place_order"),
            ("GetURL", "get_u_r_l"),
            ("Sha256Sum", "sha256_sum"),
            ("r#Move", "move"),
        ] {
            let ident = syn::parse_str::<Ident>(camel).unwrap();
            assert_eq!(snake_case(&ident), snake, "{camel}");
        }
    }

    #[test]
    fn names_are_tokens_and_not_reserved() {
        for sound in ["a", "order", "order_2", &"a".repeat(64)] {
            assert_eq!(name_problem(sound), None);
        }
        for wrong in ["", "2nd", "_a", "Order", "or.der", "or-der", "*", "@", "été", &"a".repeat(65)] {
            assert!(name_problem(wrong).is_some(), "{wrong}");
        }
        for reserved in RESERVED {
            assert!(name_problem(reserved).is_some(), "{reserved}");
            assert_eq!(token_problem(reserved), None);
        }
    }

    #[test]
    fn types_are_shown_as_written() {
        for (ty, text) in [
            (parse_quote!(contract::Place), "contract::Place"),
            (parse_quote!(Vec<(A, B)>), "Vec<(A, B)>"),
            (parse_quote!(::shop::Page<'a, Line>), "::shop::Page<'a, Line>"),
        ] {
            let ty: Type = ty;
            assert_eq!(show(&ty), text);
        }
    }
}
