// Counter, Gauge and Histogram handles; prometheus-cpp stays behind the .cc. Callable from any
// thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace walvault {

using Labels = std::map<std::string, std::string>;

class Counter {
public:
    void add(double amount = 1);
    // For what is counted elsewhere: adds what `total` is more than this counter's value.
    void raise_to(double total);

private:
    friend class Metrics;
    prometheus::Counter* counter_ = nullptr;
};

class Gauge {
public:
    void set(double value);
    double value() const;

private:
    friend class Metrics;
    prometheus::Gauge* gauge_ = nullptr;
};

class Histogram {
public:
    void observe(double value);

private:
    friend class Metrics;
    prometheus::Histogram* histogram_ = nullptr;
};

// The registry of one process. Handles stay valid as long as it lives; the same name and labels
// give the same series. Every series exists (at 0) from the moment it is asked for.
class Metrics {
public:
    Metrics();
    ~Metrics();
    Counter counter(const std::string& name, const std::string& help, const Labels& labels = {});
    Gauge gauge(const std::string& name, const std::string& help, const Labels& labels = {});
    Histogram histogram(const std::string& name, const std::string& help, const Labels& labels,
                        const std::vector<double>& buckets);
    // The Prometheus text exposition format 0.0.4, with process_* read from /proc/self.
    std::string exposition() const;

private:
    struct Registry;
    std::unique_ptr<Registry> registry_;
};

}  // namespace walvault
