"""A remote file system, as Beam sees one."""

import io
import time
import zlib

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem


class MemoryFileSystem(FileSystem):
    """Files at `memory://`; as in HDFS, none is renamed to a name that is taken."""

    files: dict[str, tuple[bytes, float]] = {}  # noqa: RUF012
    log: list[tuple[str, ...]] = []  # noqa: RUF012

    @classmethod
    def put(cls, path, content):
        cls.files[path] = content, time.time()

    @classmethod
    def below(cls, folder):
        """The contents of its files, by name."""
        return {
            path.removeprefix(folder): content
            for path, (content, _) in cls.files.items()
            if path.startswith(folder)
        }

    @classmethod
    def scheme(cls):
        return "memory"

    def join(self, basepath, *paths):
        return "/".join((basepath.rstrip("/"), *paths))

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def mkdirs(self, path):
        pass

    def has_dirs(self):
        return False

    def _list(self, prefix):
        self.log.append(("list", prefix))
        found = [path for path in self.files if path.startswith(prefix)]
        return map(self.metadata, found)

    def create(self, path, mime_type="", compression_type="auto"):
        return _NewFile(path)

    def open(self, path, mime_type="", compression_type="auto"):
        return io.BytesIO(self.files[path][0])

    def rename(self, sources, targets):
        for source, target in zip(sources, targets, strict=True):
            if target in self.files:
                raise BeamIOError(f"{target} is there")
            self.files[target] = self.files.pop(source)
            self.log.append(("rename", source, target))

    def copy(self, sources, targets):
        raise NotImplementedError

    def exists(self, path):
        return path in self.files

    def size(self, path):
        return len(self.files[path][0])

    def last_updated(self, path):
        return self.files[path][1]

    def checksum(self, path):
        return str(zlib.crc32(self.files[path][0]))

    def metadata(self, path):
        content, updated = self.files[path]
        return FileMetadata(path, len(content), updated)

    def delete(self, paths):
        for doomed in paths:
            for path in [*self.files]:
                if path == doomed or path.startswith(f"{doomed}/"):
                    del self.files[path]


class _NewFile(io.BytesIO):
    """Is there once it is closed, as the objects of object stores are."""

    def __init__(self, path):
        super().__init__()
        self._path = path

    def close(self):
        if not self.closed:
            MemoryFileSystem.put(self._path, self.getvalue())
        super().close()
