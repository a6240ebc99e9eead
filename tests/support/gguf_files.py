"""GGUF files as gguf-py reads them, and a copy of one with every tensor decoded to F32."""
import struct

import gguf
import numpy as np

ALIGNMENT = 32


def metadata(reader):
    """key → raw bytes of the key's type and value."""
    return {key: b"".join(part.tobytes() for part in field.parts[2:])
            for key, field in reader.fields.items() if not key.startswith("GGUF.")}


def decoded(tensor):
    """float32 [rows, columns] (or [n]), exactly what the blocks stand for."""
    shape = [int(n) for n in reversed(tensor.shape)]
    if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
        return np.asarray(tensor.data, dtype=np.float32).reshape(shape)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)


def write_decoded(source, target):
    """The same model with F32 weights: llama.cpp then computes with the stored weights but rounds no activation to 8 bits."""
    reader = gguf.GGUFReader(source)
    infos_begin = min(tensor.field.offset for tensor in reader.tensors)
    with open(source, "rb") as file:
        head = file.read(infos_begin)  # magic, version, counts and all keys stay as they are
    infos, offset = [], 0
    for tensor in reader.tensors:
        name, shape = tensor.name.encode(), [int(n) for n in tensor.shape]
        infos.append(struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset))
        size = 4 * int(np.prod(shape))
        offset += size + -size % ALIGNMENT
    with open(target, "wb") as file:
        file.write(head + b"".join(infos))
        file.write(b"\0" * (-file.tell() % ALIGNMENT))
        for tensor in reader.tensors:
            data = decoded(tensor).tobytes()
            file.write(data + b"\0" * (-len(data) % ALIGNMENT))
