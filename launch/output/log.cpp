#include "launch/output/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "core/error.h"

namespace longnet {

Log::Log(const std::filesystem::path& file) {
  try {
    const auto screen = std::make_shared<spdlog::sinks::stdout_color_sink_mt>();
    screen->set_pattern("%v");
    screen->set_level(spdlog::level::info);
    const auto text = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string());
    logger_ = std::make_shared<spdlog::logger>("longnet", spdlog::sinks_init_list{screen, text});
    logger_->set_level(spdlog::level::debug);
    logger_->flush_on(spdlog::level::debug);
  } catch (const spdlog::spdlog_ex& error) {
    throw Error(file.string() + ": cannot be written: " + error.what());
  }
}

void Log::record(const std::string& line) const {
  if (logger_) logger_->debug("{}", line);
}

void Log::info(const std::string& line) const {
  if (logger_) logger_->info("{}", line);
}

void Log::warn(const std::string& line) const {
  if (logger_) logger_->warn("{}", line);
}

}  // namespace longnet
