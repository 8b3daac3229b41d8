//! The calls of ecCodes' C library: the only unsafe code of the workspace.
//!
//! A [`Handle`] owns one message inside the library. Builds of the library without locks exist,
//! and the definitions of keys that it reads are shared by all messages, so one lock is held during
//! each call. What the library would print goes into the error of the call instead.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_double, c_int, c_long, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// What the library says when it fails: its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type LogProcedure = extern "C" fn(*const c_void, c_int, *const c_char);

unsafe extern "C" {
    fn codes_handle_new_from_message_copy(
        context: *mut c_void,
        data: *const c_void,
        length: usize,
    ) -> *mut c_void;
    fn codes_handle_new_from_samples(context: *mut c_void, name: *const c_char) -> *mut c_void;
    fn codes_handle_clone(handle: *const c_void) -> *mut c_void;
    fn codes_handle_delete(handle: *mut c_void) -> c_int;
    fn codes_get_message(
        handle: *const c_void,
        message: *mut *const c_void,
        length: *mut usize,
    ) -> c_int;
    fn codes_is_defined(handle: *const c_void, key: *const c_char) -> c_int;
    fn codes_is_missing(handle: *const c_void, key: *const c_char, error: *mut c_int) -> c_int;
    fn codes_get_size(handle: *const c_void, key: *const c_char, size: *mut usize) -> c_int;
    fn codes_get_long(handle: *const c_void, key: *const c_char, value: *mut c_long) -> c_int;
    fn codes_get_double(handle: *const c_void, key: *const c_char, value: *mut c_double) -> c_int;
    fn codes_get_string(
        handle: *const c_void,
        key: *const c_char,
        text: *mut c_char,
        length: *mut usize,
    ) -> c_int;
    fn codes_get_long_array(
        handle: *const c_void,
        key: *const c_char,
        values: *mut c_long,
        length: *mut usize,
    ) -> c_int;
    fn codes_get_double_array(
        handle: *const c_void,
        key: *const c_char,
        values: *mut c_double,
        length: *mut usize,
    ) -> c_int;
    fn codes_set_long(handle: *mut c_void, key: *const c_char, value: c_long) -> c_int;
    fn codes_set_double(handle: *mut c_void, key: *const c_char, value: c_double) -> c_int;
    fn codes_set_string(
        handle: *mut c_void,
        key: *const c_char,
        text: *const c_char,
        length: *mut usize,
    ) -> c_int;
    fn codes_set_long_array(
        handle: *mut c_void,
        key: *const c_char,
        values: *const c_long,
        length: usize,
    ) -> c_int;
    fn codes_set_double_array(
        handle: *mut c_void,
        key: *const c_char,
        values: *const c_double,
        length: usize,
    ) -> c_int;
    fn codes_get_gaussian_latitudes(n: c_long, latitudes: *mut c_double) -> c_int;
    fn codes_get_error_message(code: c_int) -> *const c_char;
    fn codes_context_set_logging_proc(context: *mut c_void, procedure: LogProcedure);
}

/// As much of the library's own words as an error repeats.
const LOG_LIMIT: usize = 300;
/// Longer texts than this are in no message; shorter buffers are not safe with all of its keys.
const TEXT_LIMIT: usize = 16 * 1024;

static LIBRARY: Mutex<()> = Mutex::new(());

thread_local! {
    static LOGGED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Waits for the library, and forgets what it said before.
fn library() -> MutexGuard<'static, ()> {
    static LOGGING: Once = Once::new();
    let guard = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    LOGGING.call_once(|| {
        // SAFETY: a null context is the default one; the procedure lives as long as the program.
        unsafe { codes_context_set_logging_proc(std::ptr::null_mut(), log) };
    });
    LOGGED.with_borrow_mut(String::clear);
    guard
}

/// Called by the library, in the thread of the call that it says something about.
extern "C" fn log(_context: *const c_void, _level: c_int, message: *const c_char) {
    if message.is_null() {
        return;
    }
    // SAFETY: the library passes a text that ends with zero and lives during this call.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    // While a thread ends, its log is gone; what is said then is of no use.
    let _ = LOGGED.try_with(|logged| {
        if let Ok(mut logged) = logged.try_borrow_mut()
            && logged.is_empty()
        {
            logged.extend(
                message
                    .chars()
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .take(LOG_LIMIT),
            );
        }
    });
}

/// The failure of a call, from its code and what was logged since it began.
fn failure(code: c_int) -> Failure {
    // SAFETY: the library returns a constant text for every number.
    let text = unsafe {
        let text = codes_get_error_message(code);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
    };
    let text = text.unwrap_or_default();
    let logged = LOGGED.with_borrow(Clone::clone);
    Failure(match logged.trim() {
        "" => text.into_owned(),
        logged => format!("{text}: {logged}"),
    })
}

fn check(code: c_int) -> Result<(), Failure> {
    match code {
        0 => Ok(()),
        code => Err(failure(code)),
    }
}

/// The latitudes of a Gaussian grid with so many of them between a pole and the equator, from north
/// to south.
pub(crate) fn gaussian_latitudes(n: u32) -> Result<Vec<f64>, Failure> {
    let _library = library();
    let mut latitudes = vec![0.0; 2 * n as usize];
    // SAFETY: there are the 2 n places that the library fills.
    check(unsafe { codes_get_gaussian_latitudes(c_long::from(n), latitudes.as_mut_ptr()) })?;
    Ok(latitudes)
}

/// One message inside the library.
#[derive(Debug)]
pub(crate) struct Handle(NonNull<c_void>);

// SAFETY: a handle belongs to no thread, and the lock orders all calls. It is not `Sync`: reading a
// key fills caches inside the handle.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        let _library = library();
        // SAFETY: the handle is alive, owned by this value alone, and not used after this.
        unsafe { codes_handle_delete(self.0.as_ptr()) };
    }
}

impl Handle {
    /// A message with a copy of these bytes.
    pub(crate) fn from_message(bytes: &[u8]) -> Result<Self, Failure> {
        let _library = library();
        // SAFETY: a null context is the default one; the bytes are copied during the call.
        let handle = unsafe {
            codes_handle_new_from_message_copy(
                std::ptr::null_mut(),
                bytes.as_ptr().cast(),
                bytes.len(),
            )
        };
        Self::owned(handle)
    }

    /// A message that comes with the library.
    pub(crate) fn from_sample(name: &CStr) -> Result<Self, Failure> {
        let _library = library();
        // SAFETY: a null context is the default one; the name ends with zero.
        let handle = unsafe { codes_handle_new_from_samples(std::ptr::null_mut(), name.as_ptr()) };
        Self::owned(handle)
    }

    /// A copy of the message.
    pub(crate) fn copy(&self) -> Result<Self, Failure> {
        let _library = library();
        // SAFETY: the handle is alive; the copy shares nothing with it.
        let handle = unsafe { codes_handle_clone(self.0.as_ptr()) };
        Self::owned(handle)
    }

    fn owned(handle: *mut c_void) -> Result<Self, Failure> {
        /// The library's number for a message that it cannot take.
        const INVALID_MESSAGE: c_int = -12;
        NonNull::new(handle)
            .map(Self)
            .ok_or_else(|| failure(INVALID_MESSAGE))
    }

    /// The bytes of the message.
    pub(crate) fn message(&mut self) -> Result<&[u8], Failure> {
        let _library = library();
        let mut message = std::ptr::null();
        let mut length = 0;
        // SAFETY: the handle is alive, and both results are written before they are read. The bytes
        // belong to the handle and change only by calls that borrow it, as this result does.
        unsafe {
            check(codes_get_message(
                self.0.as_ptr(),
                &raw mut message,
                &raw mut length,
            ))?;
            if message.is_null() {
                return Ok(&[]);
            }
            Ok(std::slice::from_raw_parts(message.cast::<u8>(), length))
        }
    }

    /// Whether the message has a key.
    pub(crate) fn has(&self, key: &CStr) -> bool {
        let _library = library();
        // SAFETY: the handle is alive, and the key ends with zero.
        unsafe { codes_is_defined(self.0.as_ptr(), key.as_ptr()) != 0 }
    }

    /// Whether a key of the message says that it has no value.
    pub(crate) fn is_missing(&self, key: &CStr) -> Result<bool, Failure> {
        let _library = library();
        let mut code = 0;
        // SAFETY: the handle is alive, the key ends with zero, and the code lives during the call.
        let missing = unsafe { codes_is_missing(self.0.as_ptr(), key.as_ptr(), &raw mut code) };
        check(code)?;
        Ok(missing != 0)
    }

    /// The number of values of a key.
    pub(crate) fn size(&self, key: &CStr) -> Result<usize, Failure> {
        let _library = library();
        let mut size = 0;
        // SAFETY: the handle is alive, the key ends with zero, and the size lives during the call.
        check(unsafe { codes_get_size(self.0.as_ptr(), key.as_ptr(), &raw mut size) })?;
        Ok(size)
    }

    /// An integer of the message.
    pub(crate) fn integer(&self, key: &CStr) -> Result<i64, Failure> {
        let _library = library();
        let mut value = 0;
        // SAFETY: the handle is alive, the key ends with zero, and the value lives during the call.
        check(unsafe { codes_get_long(self.0.as_ptr(), key.as_ptr(), &raw mut value) })?;
        Ok(value)
    }

    /// A real number of the message.
    pub(crate) fn real(&self, key: &CStr) -> Result<f64, Failure> {
        let _library = library();
        let mut value = 0.0;
        // SAFETY: the handle is alive, the key ends with zero, and the value lives during the call.
        check(unsafe { codes_get_double(self.0.as_ptr(), key.as_ptr(), &raw mut value) })?;
        Ok(value)
    }

    /// A text of the message.
    pub(crate) fn text(&self, key: &CStr) -> Result<String, Failure> {
        let _library = library();
        let mut text = vec![0_u8; TEXT_LIMIT];
        let mut length = text.len();
        // SAFETY: the handle is alive, the key ends with zero, and the text has as many bytes as
        // the library is told.
        check(unsafe {
            codes_get_string(
                self.0.as_ptr(),
                key.as_ptr(),
                text.as_mut_ptr().cast(),
                &raw mut length,
            )
        })?;
        let end = text.iter().position(|&byte| byte == 0);
        text.truncate(end.unwrap_or(text.len()));
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// As many integers of the message as there are, but no more than the values have room for;
    /// how many there were.
    pub(crate) fn integers(&self, key: &CStr, values: &mut [i64]) -> Result<usize, Failure> {
        let _library = library();
        let mut length = values.len();
        // SAFETY: the handle is alive, the key ends with zero, and there are as many values as the
        // library is told; it fails if it has more.
        check(unsafe {
            codes_get_long_array(
                self.0.as_ptr(),
                key.as_ptr(),
                values.as_mut_ptr(),
                &raw mut length,
            )
        })?;
        Ok(length)
    }

    /// Like [`Self::integers`], with real numbers.
    pub(crate) fn reals(&self, key: &CStr, values: &mut [f64]) -> Result<usize, Failure> {
        let _library = library();
        let mut length = values.len();
        // SAFETY: the handle is alive, the key ends with zero, and there are as many values as the
        // library is told; it fails if it has more.
        check(unsafe {
            codes_get_double_array(
                self.0.as_ptr(),
                key.as_ptr(),
                values.as_mut_ptr(),
                &raw mut length,
            )
        })?;
        Ok(length)
    }

    /// Sets an integer.
    pub(crate) fn set_integer(&mut self, key: &CStr, value: i64) -> Result<(), Failure> {
        let _library = library();
        // SAFETY: the handle is alive and borrowed by this call alone, and the key ends with zero.
        check(unsafe { codes_set_long(self.0.as_ptr(), key.as_ptr(), value) })
    }

    /// Sets a real number.
    pub(crate) fn set_real(&mut self, key: &CStr, value: f64) -> Result<(), Failure> {
        let _library = library();
        // SAFETY: the handle is alive and borrowed by this call alone, and the key ends with zero.
        check(unsafe { codes_set_double(self.0.as_ptr(), key.as_ptr(), value) })
    }

    /// Sets a text.
    pub(crate) fn set_text(&mut self, key: &CStr, text: &CStr) -> Result<(), Failure> {
        let _library = library();
        let mut length = text.to_bytes().len();
        // SAFETY: the handle is alive and borrowed by this call alone; key and text end with zero.
        check(unsafe {
            codes_set_string(
                self.0.as_ptr(),
                key.as_ptr(),
                text.as_ptr(),
                &raw mut length,
            )
        })
    }

    /// Sets integers.
    pub(crate) fn set_integers(&mut self, key: &CStr, values: &[i64]) -> Result<(), Failure> {
        let _library = library();
        // SAFETY: the handle is alive and borrowed by this call alone, the key ends with zero, and
        // there are as many values as the library is told.
        check(unsafe {
            codes_set_long_array(self.0.as_ptr(), key.as_ptr(), values.as_ptr(), values.len())
        })
    }

    /// Sets real numbers.
    pub(crate) fn set_reals(&mut self, key: &CStr, values: &[f64]) -> Result<(), Failure> {
        let _library = library();
        // SAFETY: the handle is alive and borrowed by this call alone, the key ends with zero, and
        // there are as many values as the library is told.
        check(unsafe {
            codes_set_double_array(self.0.as_ptr(), key.as_ptr(), values.as_ptr(), values.len())
        })
    }
}
