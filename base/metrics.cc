#include "base/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace walvault {

struct Metrics::Registry {
    prometheus::Registry families{prometheus::Registry::InsertBehavior::Merge};
};

namespace {

prometheus::MetricFamily single(const std::string& name, const std::string& help,
                                prometheus::MetricType type, double value) {
    prometheus::MetricFamily family;
    family.name = name;
    family.help = help;
    family.type = type;
    prometheus::ClientMetric metric;
    if (type == prometheus::MetricType::Counter)
        metric.counter.value = value;
    else
        metric.gauge.value = value;
    family.metric.push_back(metric);
    return family;
}

double start_time_seconds() {
    std::ifstream self("/proc/self/stat");
    std::string text((std::istreambuf_iterator<char>(self)), {});
    // Field 22; the second field is a name in parentheses that may hold spaces.
    std::istringstream rest(text.substr(std::min(text.rfind(')') + 2, text.size())));
    std::string field;
    for (int i = 3; i <= 22; ++i)
        rest >> field;
    std::ifstream stat("/proc/stat");
    double boot = 0;
    for (std::string line; std::getline(stat, line);)
        if (line.rfind("btime ", 0) == 0) boot = std::stod(line.substr(6));
    return field.empty() ? 0 : boot + std::stod(field) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

void append_process_metrics(std::vector<prometheus::MetricFamily>& families) {
    using prometheus::MetricType;
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    auto seconds = [](timeval t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
    };
    std::ifstream statm("/proc/self/statm");
    double virtual_pages = 0;
    double resident_pages = 0;
    statm >> virtual_pages >> resident_pages;
    double page = static_cast<double>(sysconf(_SC_PAGESIZE));
    std::error_code ignored;
    double fds = 0;
    for (auto it = std::filesystem::directory_iterator("/proc/self/fd", ignored);
         it != std::filesystem::directory_iterator(); it.increment(ignored))
        ++fds;
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    families.push_back(single("process_cpu_seconds_total", "User and system CPU time.",
                              MetricType::Counter,
                              seconds(usage.ru_utime) + seconds(usage.ru_stime)));
    families.push_back(single("process_resident_memory_bytes", "Resident memory.",
                              MetricType::Gauge, resident_pages * page));
    families.push_back(single("process_virtual_memory_bytes", "Virtual memory.", MetricType::Gauge,
                              virtual_pages * page));
    families.push_back(
        single("process_open_fds", "Open file descriptors.", MetricType::Gauge, fds));
    families.push_back(single("process_max_fds", "Limit of open file descriptors.",
                              MetricType::Gauge, static_cast<double>(limit.rlim_cur)));
    static const double started = start_time_seconds();
    families.push_back(single("process_start_time_seconds", "When the process started, Unix time.",
                              MetricType::Gauge, started));
}

}  // namespace

void Counter::add(double amount) { counter_->Increment(amount); }
void Counter::raise_to(double total) {
    if (total > counter_->Value()) counter_->Increment(total - counter_->Value());
}
void Gauge::set(double value) { gauge_->Set(value); }
double Gauge::value() const { return gauge_->Value(); }
void Histogram::observe(double value) { histogram_->Observe(value); }

Metrics::Metrics() : registry_(std::make_unique<Registry>()) {}
Metrics::~Metrics() = default;

Counter Metrics::counter(const std::string& name, const std::string& help, const Labels& labels) {
    Counter handle;
    handle.counter_ =
        &prometheus::BuildCounter().Name(name).Help(help).Register(registry_->families).Add(labels);
    return handle;
}

Gauge Metrics::gauge(const std::string& name, const std::string& help, const Labels& labels) {
    Gauge handle;
    handle.gauge_ =
        &prometheus::BuildGauge().Name(name).Help(help).Register(registry_->families).Add(labels);
    return handle;
}

Histogram Metrics::histogram(const std::string& name, const std::string& help, const Labels& labels,
                             const std::vector<double>& buckets) {
    Histogram handle;
    handle.histogram_ = &prometheus::BuildHistogram()
                             .Name(name)
                             .Help(help)
                             .Register(registry_->families)
                             .Add(labels, buckets);
    return handle;
}

std::string Metrics::exposition() const {
    auto families = registry_->families.Collect();
    append_process_metrics(families);
    return prometheus::TextSerializer().Serialize(families);
}

}  // namespace walvault
