//! What the library is, and what its results mean.

use std::ffi::{CStr, c_char};

use crate::{
    guard::last_error,
    result::{camagent_result, meaning},
};

/// The version of the library, for example "0.1.0". Static.
///
/// @return never NULL
#[unsafe(no_mangle)]
pub extern "C" fn camagent_version() -> *const c_char {
    VERSION.as_ptr()
}

/// What a result means, in general words. Static.
///
/// @param result  what a call returned
/// @return never NULL
#[unsafe(no_mangle)]
pub extern "C" fn camagent_strerror(result: camagent_result) -> *const c_char {
    meaning(result).as_ptr()
}

/// What was wrong with the last failed call of this thread, in words that name the cause.
///
/// @return never NULL, empty before the first failure; valid until this thread's next failing call
#[unsafe(no_mangle)]
pub extern "C" fn camagent_last_error() -> *const c_char {
    last_error()
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};
