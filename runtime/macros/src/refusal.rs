//! `#[refusal]`: an actor's typed no.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Ident, LitInt};

use crate::attr::{self, Arg, once};
use crate::check::Problems;
use crate::derive;

/// What a refusal without a code of its own shows, as in `Refusal::code`.
const CODE: u16 = 409;

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let general = read(args, &mut problems);
    let Some(mut input) = derive::parse_plain("refusal", item.clone(), &mut problems) else {
        let problems = problems.into_tokens();
        return quote!(#problems #item);
    };
    let codes = codes(&mut input, &mut problems);
    let (derives, problems) = (derive::derives(&input), problems.into_tokens());
    let refusal = write(&input, general.unwrap_or(CODE), &codes);
    quote! {
        #derives
        #input
        #refusal
        #problems
    }
}

fn read(tokens: TokenStream, problems: &mut Problems) -> Option<u16> {
    let mut code = None;
    for arg in attr::args(tokens, problems) {
        match arg {
            Arg::Pair(key, value) if key == "code" => {
                once(&mut code, value.number(&key, problems), "`code`", problems);
            }
            arg => arg.unknown("refusal", "`code = 409`", problems),
        }
    }
    code.and_then(|code| in_range(&code, problems))
}

/// Takes the `#[code(n)]` attributes off the variants.
fn codes(input: &mut DeriveInput, problems: &mut Problems) -> Vec<(Ident, u16)> {
    if let Some(stray) = input.attrs.iter().find(|attr| attr.path().is_ident("code")) {
        problems.push(syn::Error::new_spanned(stray, "the code of the whole refusal is `#[refusal(code = 404)]`"));
    }
    input.attrs.retain(|attr| !attr.path().is_ident("code"));
    let Data::Enum(data) = &mut input.data else {
        return Vec::new();
    };
    let mut codes = Vec::new();
    for variant in &mut data.variants {
        let mut own = None;
        variant.attrs.retain(|attr| {
            if !attr.path().is_ident("code") {
                return true;
            }
            once(&mut own, number(attr, problems), "`#[code(..)]`", problems);
            false
        });
        if let Some(code) = own.and_then(|code| in_range(&code, problems)) {
            codes.push((variant.ident.clone(), code));
        }
    }
    codes
}

fn number(attr: &Attribute, problems: &mut Problems) -> Option<LitInt> {
    let number = attr.parse_args::<LitInt>();
    if number.is_err() {
        problems.push(syn::Error::new_spanned(attr, "a code is a number from 400 to 499: `#[code(404)]`"));
    }
    number.ok()
}

fn in_range(code: &LitInt, problems: &mut Problems) -> Option<u16> {
    let number = code.base10_parse::<u16>().ok().filter(|number| (400..=499).contains(number));
    if number.is_none() {
        problems.at(code.span(), "a refusal's code is 400 to 499: other numbers are for failures");
    }
    number
}

fn write(input: &DeriveInput, general: u16, codes: &[(Ident, u16)]) -> TokenStream {
    let ident = &input.ident;
    let code = if codes.is_empty() {
        quote!(#general)
    } else {
        let arms = codes.iter().map(|(variant, code)| quote!(Self::#variant { .. } => #code,));
        let all = matches!(&input.data, Data::Enum(data) if data.variants.len() == codes.len());
        let rest = (!all).then(|| quote!(_ => #general,));
        quote!(match self { #(#arms)* #rest })
    };
    quote! {
        #[automatically_derived]
        impl ::greenroom::contract::Refusal for #ident {
            fn code(&self) -> u16 {
                #code
            }
        }
    }
}
