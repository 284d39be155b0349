//! The border itself: panics end here, errors become numbers, and structures and texts from C are read with care.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use crate::result::{CAMAGENT_E_FAULT, CAMAGENT_E_INVAL, CAMAGENT_E_VERSION, Failure, camagent_result};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs one entry: what goes wrong becomes a number, and a text for [`last_error`].
pub(crate) fn guard(entry: impl FnOnce() -> Result<camagent_result, Failure>) -> camagent_result {
    silence_panics();
    let failure = match catch_unwind(AssertUnwindSafe(entry)) {
        Ok(Ok(result)) => return result,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text =
                panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Failure::new(CAMAGENT_E_FAULT, format!("a bug in the agent: {}", text.unwrap_or("a panic without words")))
        }
    };
    // A thread that is ending has no place for the text any more; the number still tells.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = c_string(&failure.text));
    failure.result
}

/// The text of this thread's last failure, valid until its next one.
pub(crate) fn last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Text for C: a NUL inside ends it.
pub(crate) fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// Text from C. NULL is an error that names the argument.
///
/// # Safety
/// `text` is NULL or points to a text that ends with NUL and lives through the use of the result.
pub(crate) unsafe fn text<'a>(text: *const c_char, argument: &str) -> Result<&'a str, Failure> {
    // SAFETY: passed on from the caller.
    unsafe { optional_text(text, argument) }?.ok_or_else(|| Failure::null(argument))
}

/// Text from C, or nothing for NULL.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(text: *const c_char, argument: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|error| Failure::new(CAMAGENT_E_INVAL, format!("{argument} is not UTF-8: {error}")))
}

/// A structure whose first member is its size.
///
/// # Safety
/// The type is `repr(C)`, begins with a `u32`, and all zeros is a value of it.
pub(crate) unsafe trait Sized32: Copy {
    /// What C calls it.
    const NAME: &'static str;
    /// Size in the first version that had it: less is an error.
    const LEAST: usize;
}

/// Reads a structure that C filled: members that an older header does not have are zero, members of a newer one must be.
///
/// # Safety
/// `from` is NULL or points to as many readable octets as its first member says.
pub(crate) unsafe fn read<T: Sized32>(from: *const T) -> Result<Option<T>, Failure> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: every such structure begins with its size.
    let size = unsafe { from.cast::<u32>().read_unaligned() } as usize;
    check_size::<T>(size)?;
    // SAFETY: the caller vouches for `size` octets.
    let octets = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), size) };
    if octets.get(size_of::<T>()..).is_some_and(|surplus| surplus.iter().any(|octet| *octet != 0)) {
        let what = format!("{}: the program was built with a newer header, and uses what is new in it", T::NAME);
        return Err(Failure::new(CAMAGENT_E_VERSION, what));
    }
    let known = size.min(size_of::<T>());
    // SAFETY: all zeros is a value of `T`, and `known` octets fit into it.
    unsafe {
        let mut value: T = std::mem::zeroed();
        std::ptr::copy_nonoverlapping(octets.as_ptr(), (&raw mut value).cast::<u8>(), known);
        Ok(Some(value))
    }
}

/// Whether [`write`] will be able to fill a structure.
///
/// # Safety
/// As [`write`].
pub(crate) unsafe fn check<T: Sized32>(to: *const T, argument: &str) -> Result<(), Failure> {
    if to.is_null() {
        return Err(Failure::null(argument));
    }
    // SAFETY: every such structure begins with its size.
    check_size::<T>(unsafe { to.cast::<u32>().read_unaligned() } as usize)
}

/// Fills a structure of C: at most as much as its first member says, and tells there how much that was.
///
/// # Safety
/// `to` is NULL or points to as many writable octets as its first member says.
pub(crate) unsafe fn write<T: Sized32>(to: *mut T, value: &T, argument: &str) -> Result<(), Failure> {
    // SAFETY: passed on from the caller.
    unsafe { check(to, argument) }?;
    // SAFETY: every such structure begins with its size.
    let size = unsafe { to.cast::<u32>().read_unaligned() } as usize;
    let known = size.min(size_of::<T>());
    // SAFETY: `known` octets are readable in `value` and writable at `to`, which are different objects.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const *value).cast::<u8>(), to.cast::<u8>(), known);
        to.cast::<u32>().write_unaligned(u32::try_from(known).unwrap_or(0));
    }
    Ok(())
}

fn check_size<T: Sized32>(size: usize) -> Result<(), Failure> {
    /// No structure will ever be larger; what is, is a size that was never set.
    const MOST: usize = 4_096;
    if (T::LEAST..=MOST).contains(&size) {
        return Ok(());
    }
    let what = format!("{}.struct_size is {size}: set it to sizeof({})", T::NAME, T::NAME);
    Err(Failure::new(CAMAGENT_E_INVAL, what))
}

/// A panic is caught and told by its result; the standard library's words on stderr are not for a camera.
fn silence_panics() {
    static ONCE: Once = Once::new();
    // This is the hook of the standard library inside libcamagent: a Rust host has its own.
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}
