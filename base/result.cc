#include "base/result.h"

namespace walvault {

std::string_view to_string(Errc code) {
    switch (code) {
        case Errc::invalid_argument:
            return "invalid_argument";
        case Errc::not_found:
            return "not_found";
        case Errc::corrupt:
            return "corrupt";
        case Errc::io:
            return "io";
        case Errc::no_space:
            return "no_space";
        case Errc::unavailable:
            return "unavailable";
        case Errc::archived:
            return "archived";
        case Errc::refused:
            return "refused";
        case Errc::busy:
            return "busy";
        case Errc::wrong_key:
            return "wrong_key";
        case Errc::unsupported:
            return "unsupported";
        case Errc::outside_window:
            return "outside_window";
        case Errc::ambiguous:
            return "ambiguous";
        case Errc::gap:
            return "gap";
        case Errc::forked:
            return "forked";
        case Errc::unusable:
            return "unusable";
        case Errc::cancelled:
            return "cancelled";
    }
    return "unknown";
}

tl::unexpected<Error> fail(Errc code, std::string message, std::string hint) {
    return tl::unexpected<Error>(Error{code, std::move(message), std::move(hint)});
}

tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

tl::unexpected<Error> fail_while(std::string_view doing, Error error) {
    error.message.insert(0, std::string(doing) + ": ");
    return tl::unexpected<Error>(std::move(error));
}

}  // namespace walvault
