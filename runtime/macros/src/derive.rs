//! The derives that every type on the wire has, and `#[data]`, which is nothing else.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Meta, Token, punctuated::Punctuated};

use crate::attr;
use crate::check::Problems;

/// Writes `#[data]`.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    for arg in attr::args(args, &mut problems) {
        problems.at(arg.span(), "#[data] takes no arguments");
    }
    let Some(input) = parse("data", item.clone(), &mut problems) else {
        let problems = problems.into_tokens();
        return quote!(#problems #item);
    };
    let (derives, problems) = (derives(&input), problems.into_tokens());
    quote! {
        #derives
        #input
        #problems
    }
}

/// Reads the struct or enum that an attribute stands on.
pub(crate) fn parse(attribute: &str, item: TokenStream, problems: &mut Problems) -> Option<DeriveInput> {
    match syn::parse2::<DeriveInput>(item) {
        Ok(input) if matches!(input.data, Data::Union(_)) => {
            problems.at(input.ident.span(), format!("#[{attribute}] goes on a struct or an enum"));
            None
        }
        Ok(input) => Some(input),
        Err(error) => {
            problems.at(error.span(), format!("#[{attribute}] goes on a struct or an enum"));
            None
        }
    }
}

/// The same, for types with one form on the wire.
pub(crate) fn parse_plain(attribute: &str, item: TokenStream, problems: &mut Problems) -> Option<DeriveInput> {
    let input = parse(attribute, item, problems)?;
    if input.generics.params.is_empty() {
        return Some(input);
    }
    let text = format!("#[{attribute}] has one form on the wire: it takes no generic parameters");
    problems.push(syn::Error::new_spanned(&input.generics, text));
    None
}

/// The derives that this item does not have already, with the paths that make them work in crates
/// that do not depend on serde and schemars themselves. They stand before all other attributes, so
/// that serde's and schemars' own are known below them.
pub(crate) fn derives(input: &DeriveInput) -> TokenStream {
    let wanted = [
        ("Serialize", quote!(::greenroom::__private::serde::Serialize)),
        ("Deserialize", quote!(::greenroom::__private::serde::Deserialize)),
        ("JsonSchema", quote!(::greenroom::__private::schemars::JsonSchema)),
        ("Clone", quote!(::core::clone::Clone)),
        ("Debug", quote!(::core::fmt::Debug)),
    ];
    let present = present(&input.attrs);
    let missing = wanted.into_iter().filter(|(name, _)| !present.iter().any(|have| have == name));
    let missing = missing.map(|(_, path)| path);
    let serde_crate =
        (!serde_has(&input.attrs, "crate")).then(|| quote!(#[serde(crate = "::greenroom::__private::serde")]));
    let schemars_crate = (!helper_has(&input.attrs, "schemars", "crate"))
        .then(|| quote!(#[schemars(crate = "::greenroom::__private::schemars")]));
    let rename = (matches!(input.data, Data::Enum(_)) && !serde_has(&input.attrs, "rename_all"))
        .then(|| quote!(#[serde(rename_all = "snake_case")]));
    quote! {
        #[derive(#(#missing),*)]
        #serde_crate
        #schemars_crate
        #rename
    }
}

/// The last names of what the item derives.
fn present(attrs: &[Attribute]) -> Vec<String> {
    let mut names = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("derive")) {
        // What cannot be read here is reported by the compiler, which reads it too.
        let paths = attr.parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated);
        for path in paths.into_iter().flatten() {
            names.extend(path.segments.last().map(|segment| segment.ident.to_string()));
        }
    }
    names
}

/// Whether a `#[serde(..)]` among these holds this key.
pub(crate) fn serde_has(attrs: &[Attribute], key: &str) -> bool {
    helper_has(attrs, "serde", key)
}

fn helper_has(attrs: &[Attribute], helper: &str, key: &str) -> bool {
    attrs.iter().filter(|attr| attr.path().is_ident(helper)).any(|attr| match &attr.meta {
        Meta::List(list) => list.tokens.clone().into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == key,
            _ => false,
        }),
        _ => false,
    })
}
