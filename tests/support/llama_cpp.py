"""llama.cpp and ggml as independent implementations: the C API inside the xllamacpp wheel, through ctypes."""
import ctypes
import glob
import importlib.util
import os

import numpy as np

ROOM = 1024  # bytes; the parameter structs are smaller, and passed by value in memory all the same
GGML_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "BF16": 30}


class Opaque(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint8 * ROOM)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8))]


def _load_library():
    folder = importlib.util.find_spec("xllamacpp").submodule_search_locations[0]
    library = ctypes.PyDLL(glob.glob(os.path.join(folder, "xllamacpp*.so"))[0])
    pointer, i32, i64, text = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_char_p
    i32s = ctypes.POINTER(i32)
    signatures = {
        "llama_backend_init": (None, []),
        "llama_model_default_params": (Opaque, []),
        "llama_context_default_params": (Opaque, []),
        "llama_model_load_from_file": (pointer, [text, Opaque]),
        "llama_model_free": (None, [pointer]),
        "llama_model_get_vocab": (pointer, [pointer]),
        "llama_vocab_n_tokens": (i32, [pointer]),
        "llama_vocab_get_add_bos": (ctypes.c_bool, [pointer]),
        "llama_vocab_bos": (i32, [pointer]),
        "llama_tokenize": (i32, [pointer, text, i32, i32s, i32, ctypes.c_bool, ctypes.c_bool]),
        "llama_init_from_model": (pointer, [pointer, Opaque]),
        "llama_free": (None, [pointer]),
        "llama_adapter_lora_init": (pointer, [pointer, text]),
        "llama_set_adapters_lora": (i32, [pointer, ctypes.POINTER(pointer), ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)]),
        "llama_set_n_threads": (None, [pointer, i32, i32]),
        "llama_batch_init": (Batch, [i32, i32, i32]),
        "llama_batch_free": (None, [Batch]),
        "llama_decode": (i32, [pointer, Batch]),
        "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [pointer, i32]),
        "ggml_quantize_chunk": (ctypes.c_size_t, [i32, pointer, pointer, i64, i64, i64, pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_messages = []
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_keep_log = _LOG(lambda level, message, _: _messages.append(message.decode(errors="replace")))
_library = _load_library()
_library.llama_log_set.argtypes = [_LOG, ctypes.c_void_p]
_library.llama_log_set(_keep_log, None)
_library.llama_backend_init()


class Model:
    """A GGUF opened by llama.cpp. Raises RuntimeError with llama.cpp's last messages if it does not load."""

    def __init__(self, path):
        self.model_ = _library.llama_model_load_from_file(os.fsencode(path), _library.llama_model_default_params())
        if not self.model_:
            raise RuntimeError(f"llama.cpp does not load {path}: " + "".join(_messages[-8:]))
        self.vocab_ = _library.llama_model_get_vocab(self.model_)
        self.vocab_size = _library.llama_vocab_n_tokens(self.vocab_)
        self.adapters_ = []
        self.bos = _library.llama_vocab_bos(self.vocab_) if _library.llama_vocab_get_add_bos(self.vocab_) else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _library.llama_model_free(self.model_)

    def add_lora(self, path):
        """Applies a GGUF LoRA from now on; llama.cpp frees it with the model."""
        adapter = _library.llama_adapter_lora_init(self.model_, os.fsencode(path))
        if not adapter:
            raise RuntimeError(f"llama.cpp does not load {path}: " + "".join(_messages[-8:]))
        self.adapters_.append(adapter)

    def tokenize(self, text, add_special=False, parse_special=True):
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 8))()
        count = _library.llama_tokenize(self.vocab_, data, len(data), ids, len(ids), add_special, parse_special)
        if count < 0:
            raise RuntimeError(f"llama_tokenize: {count}")
        return list(ids[:count])

    def logits(self, ids):
        """float32 [len(ids), vocabulary]: one sequence of at most 512 tokens from an empty cache."""
        context = _library.llama_init_from_model(self.model_, _library.llama_context_default_params())
        if not context:
            raise RuntimeError("llama.cpp: no context: " + "".join(_messages[-8:]))
        if self.adapters_:
            count = len(self.adapters_)
            _library.llama_set_adapters_lora(context, (ctypes.c_void_p * count)(*self.adapters_), count,
                                             (ctypes.c_float * count)(*[1.0] * count))
        threads = len(os.sched_getaffinity(0))
        _library.llama_set_n_threads(context, threads, threads)
        batch = _library.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
                batch.seq_id[i][0] = 0
            status = _library.llama_decode(context, batch)
            if status != 0:
                raise RuntimeError(f"llama_decode: {status}: " + "".join(_messages[-8:]))
            return np.stack([np.ctypeslib.as_array(_library.llama_get_logits_ith(context, i), (self.vocab_size,)).copy()
                             for i in range(len(ids))])
        finally:
            _library.llama_batch_free(batch)
            _library.llama_free(context)


def quantize(values, kind):
    """Bytes that ggml's own quantizer makes of a float32 matrix, without importance."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    rows, columns = values.shape
    out = np.zeros(values.size * 2, dtype=np.uint8)
    size = _library.ggml_quantize_chunk(GGML_TYPES[kind], values.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    return out[:size]


def nll(logits, targets):
    """-log softmax(logits)[target] per row, in double precision."""
    logits = logits.astype(np.float64)
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return log_sum - logits[np.arange(len(targets)), targets]
