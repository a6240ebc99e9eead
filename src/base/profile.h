// Where the time of a run goes: named scopes with the operations and bytes that each must spend, for a table by op and for
// a trace. While nothing is being recorded, a scope costs nothing but a look at a thread's variable.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace temper {

/// A finished scope. Names are literals of the program.
struct ProfileEvent {
  const char* section;  ///< What it was part of: "forward", "low-rank", …; empty at the top.
  const char* name;     ///< The op: "matmul", "rmsnorm", ….
  std::int64_t begin_ns, end_ns;
  double flops, bytes;  ///< What the op's definition asks for: multiply-adds count two, each operand is moved once.
};

/// All scopes of one (section, name).
struct ProfileRow {
  std::string section, name;
  std::int64_t calls = 0;
  double seconds = 0, flops = 0, bytes = 0;
};

/// Scopes that were recorded (see ProfileRecording).
class Profile {
 public:
  /// Rows in order of time spent. Time outside of any scope is in none of them.
  std::vector<ProfileRow> rows() const;
  double seconds() const { return seconds_; }  ///< Recorded in all.

  /// Writes the events in the Trace Event Format (JSON, "X" events, microseconds), which Perfetto and chrome://tracing open.
  void write_trace(const std::filesystem::path& path) const;

 private:
  friend class ProfileRecording;
  friend class ProfileScope;
  double seconds_ = 0;
  std::vector<ProfileEvent> events_;
};

/// While it lives, the scopes of this thread go to `profile`; null records nothing. One at a time.
class ProfileRecording {
 public:
  explicit ProfileRecording(Profile* profile);
  ~ProfileRecording();
  ProfileRecording(const ProfileRecording&) = delete;
  ProfileRecording& operator=(const ProfileRecording&) = delete;

 private:
  Profile* profile_;
  std::int64_t begin_ns_;
};

/// One op, from construction to destruction. Scopes of ops do not nest.
class ProfileScope {
 public:
  explicit ProfileScope(const char* name);
  ~ProfileScope();
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

  bool active() const { return profile_ != nullptr; }
  void add(double flops, double bytes) {
    event_.flops += flops;
    event_.bytes += bytes;
  }

 private:
  Profile* profile_;
  ProfileEvent event_;
};

/// Names what the ops inside belong to; the innermost one counts.
class ProfileSection {
 public:
  explicit ProfileSection(const char* name);
  ~ProfileSection();
  ProfileSection(const ProfileSection&) = delete;
  ProfileSection& operator=(const ProfileSection&) = delete;

 private:
  const char* outer_;
};

}  // namespace temper
