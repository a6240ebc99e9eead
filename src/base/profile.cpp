#include "base/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

#include "base/atomic_file.h"
#include "base/error.h"

namespace temper {
namespace {

thread_local Profile* t_profile = nullptr;
thread_local const char* t_section = "";

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

ProfileRecording::ProfileRecording(Profile* profile) : profile_(profile), begin_ns_(now_ns()) {
  if (profile && t_profile) throw LogicError("profile: this thread is being recorded already");
  if (profile) t_profile = profile;
}

ProfileRecording::~ProfileRecording() {
  if (!profile_) return;
  profile_->seconds_ += static_cast<double>(now_ns() - begin_ns_) * 1e-9;
  t_profile = nullptr;
}

std::vector<ProfileRow> Profile::rows() const {
  std::map<std::pair<std::string, std::string>, ProfileRow> by_name;
  for (const ProfileEvent& e : events_) {
    ProfileRow& row = by_name[{e.section, e.name}];
    row.section = e.section;
    row.name = e.name;
    ++row.calls;
    row.seconds += static_cast<double>(e.end_ns - e.begin_ns) * 1e-9;
    row.flops += e.flops;
    row.bytes += e.bytes;
  }
  std::vector<ProfileRow> rows;
  for (auto& [name, row] : by_name) rows.push_back(std::move(row));
  std::ranges::stable_sort(rows, std::ranges::greater(), &ProfileRow::seconds);
  return rows;
}

void Profile::write_trace(const std::filesystem::path& path) const {
  const std::int64_t start = events_.empty() ? 0 : events_.front().begin_ns;
  AtomicFile file(path);
  file.write("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
  const char* separator = "";
  for (const ProfileEvent& e : events_) {
    const auto microseconds = [](std::int64_t ns) { return static_cast<double>(ns) * 1e-3; };
    file.write(fmt::format(
        R"({}{{"ph":"X","pid":1,"tid":1,"cat":"{}","name":"{}{}{}","ts":{:.3f},"dur":{:.3f},"args":{{"flops":{},"bytes":{}}}}})",
        separator, e.section, e.section, *e.section ? ": " : "", e.name, microseconds(e.begin_ns - start),
        microseconds(e.end_ns - e.begin_ns), e.flops, e.bytes));
    separator = ",\n";
  }
  file.write("\n]}\n");
  file.commit();
}

ProfileScope::ProfileScope(const char* name) : profile_(t_profile), event_{} {
  if (profile_) event_ = {t_section, name, now_ns(), 0, 0, 0};
}

ProfileScope::~ProfileScope() {
  if (!profile_) return;
  event_.end_ns = now_ns();
  profile_->events_.push_back(event_);
}

ProfileSection::ProfileSection(const char* name) : outer_(std::exchange(t_section, name)) {}
ProfileSection::~ProfileSection() { t_section = outer_; }

}  // namespace temper
