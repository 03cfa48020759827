#include <intel-ipsec-mb.h>
#if !defined(IMB_VERSION_NUM) || IMB_VERSION_NUM < IMB_VERSION(1, 3, 0)
#error "intel-ipsec-mb is older than 1.3"
#endif
